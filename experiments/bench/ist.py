"""Rounds of independent subnet training, 1 to 8 workers: jist beside the same subnets in PyTorch.

MLP 768-1000-1000-10, Adam made anew every round, batch 64, 50 local steps. jist holds all workers
in one process and one compiled program. PyTorch has on a CPU a process for each worker, over gloo:
it cuts its subnet out of the full parameters, trains it, gathers everybody's and pastes them; and
everywhere, one worker after the other in one process, which is all there is beside jist on a GPU:
eager PyTorch, neither compiled nor as CUDA graphs. First a round of 5 steps must lead to the same
mean loss and parameters, with the same partition of the neurons, order and initial weights.
"""

import contextlib
import functools
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from experiments.bench.hardware import has_torch
from experiments.bench.head import QUICK_EXAMPLES, QUICK_WIDTHS, TORCH_DEVICES, WIDTHS
from experiments.bench.mlp_work import OPTIMIZERS, Work, make_work
from experiments.bench.rounds import Other, Rounds, rounds_case
from experiments.bench.timing import JIST, Case, seconds
from jist.ist import partition
from jist.strategies import IST

BATCH, LOCAL_STEPS, EXAMPLES = 64, 50, 12_800
WORKERS, QUICK_WORKERS = (1, 2, 4, 8), (2,)
# Adam divides a gradient by its own size, so rounding grows with every step; after five the layers
# of all variants lie within a thousandth of their way, where one step left out is a fifth of it.
CHECK_STEPS = 5
PARTITIONS = 4  # are drawn before the timing for PyTorch, which takes them in turn
PROCESSES, SERVER, IN_TURN = "torch processes", "torch processes, server", "torch eager, in turn"


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """One case for every number of workers.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take a small network, by two workers.
    """
    torch_variants = (PROCESSES, IN_TURN) if device == "cpu" else (IN_TURN,)
    widths, examples = (QUICK_WIDTHS, QUICK_EXAMPLES) if quick else (WIDTHS, EXAMPLES)
    for workers in QUICK_WORKERS if quick else WORKERS:
        work = make_work(widths, optimizer="adam", batch=BATCH, examples=examples)
        with contextlib.ExitStack() as stack:
            yield round_case(
                *(stack, work, device, workers, LOCAL_STEPS, torch_variants),
                check_steps=CHECK_STEPS,
            )


def round_case(
    stack: contextlib.ExitStack,
    work: Work,
    device: str,
    workers: int,
    local_steps: int,
    torch_variants: Sequence[str],
    *,
    check_steps: int | None = None,
) -> Case:
    """A round by all variants.

    Args:
        stack: ends processes and frees memory when the case is over.
        work: what to do.
        device: "cpu" or "gpu".
        workers: number of workers n; divides the hidden widths.
        local_steps: number J of a worker's steps.
        torch_variants: of `PROCESSES`, `SERVER` and `IN_TURN`.
        check_steps: steps of the round after which results are compared; J by default.

    Raises:
        RuntimeError: a variant does other work.
    """
    strategy = IST(
        work.model,
        OPTIMIZERS[work.optimizer],
        workers=workers,
        local_steps=local_steps,
        optimizer_state="reset",
    )
    jist = Rounds(strategy, work)
    stack.callback(jist.free)
    order = work.order(workers, local_steps)
    others = {
        name: functools.partial(_torch_variant, stack, name, work, device, workers)
        for name in torch_variants
    }
    return rounds_case(
        jist,
        order,
        others if has_torch() else {},
        check_steps=check_steps,
        conclude=lambda samples: {"exchange_share": exchange_share(jist, order, samples[JIST])},
    )


def partitions(widths: Sequence[int], workers: int) -> list[list[np.ndarray]]:
    """The partitions of a jist run's first rounds: the parts [workers, part] of every layer."""
    layers = {f"hidden{i}": width for i, width in enumerate(widths, 1)}
    keys = [jax.random.fold_in(jax.random.key(0), number) for number in range(PARTITIONS)]
    drawn = [partition(key, layers, workers) for key in keys]
    return [[np.asarray(parts[layer]) for layer in layers] for parts in drawn]


def exchange_share(
    jist: Callable[[np.ndarray], object], order: np.ndarray, rounds: Sequence[float]
) -> float:
    """The share of a round that is not steps: drawing, cutting, exchanging, pasting, dispatching.

    Beside the timed rounds some of one step are played; what all steps but one take more is
    theirs, and so is as much for the first.

    Args:
        jist: plays a round.
        order: of a whole one [workers, steps, B].
        rounds: seconds that whole ones took.
    """
    one, steps = order[:, :1], order.shape[1]
    jist(one)  # compiles
    short = statistics.median(seconds(lambda: jist(one)) for _ in range(5))
    whole = statistics.median(rounds)
    return (short - (whole - short) / (steps - 1)) / whole


def _torch_variant(
    stack: contextlib.ExitStack, name: str, work: Work, device: str, workers: int
) -> Other:
    """A variant before its first round, with neurons assigned as for that of jist."""
    given = (work.start, work.x, work.y)
    play: Callable[[Sequence[np.ndarray], np.ndarray], float]
    if name == IN_TURN:
        from experiments.bench.torch_mlp import TorchSubnets

        play = variant = TorchSubnets(
            *given, optimizer=work.optimizer, device=TORCH_DEVICES[device]
        )
    else:
        from experiments.bench.torch_workers import TorchWorkers

        variant = stack.enter_context(TorchWorkers(workers, *given, optimizer=work.optimizer))
        play = functools.partial(variant.ist, server=name == SERVER)
    turns = itertools.cycle(partitions(work.model.widths[1:-1], workers))
    return lambda order: play(next(turns), order), variant.arrays
