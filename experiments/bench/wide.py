"""Wide networks of the speech experiments (Yuan et al., VLDB 2022), a round at a time.

Their 3-layer network, 4096-8192-8192-8192-35, and 4096-4096-4096-35, for which speeds of their
released PyTorch code are known; batch 128 and plain SGD with a learning rate of 0.01, as in that
code; 20 local steps of the smaller network, as there, and 10 of the other, whose steps take more
than a second on one core. jist's rounds of independent subnet training stand beside the same in
PyTorch; data parallel training and local SGD in jist beside `DistributedDataParallel` and local
SGD, a process for each worker over gloo, where there is a CPU (a GPU has no room for such
processes; there jist stands beside eager PyTorch, one worker after the other, neither compiled nor
as CUDA graphs, and its baselines alone).

The released code itself is not run. Written anew from its description, for the smaller network, is
what it does with "a server on one rank": the first process holds the full network, sends out the
subnets, trains one, takes all back and pastes them. It is given jist's network (theirs learns a
scale and a shift of hidden neurons and standardises the logits too), so that results can be
compared. First some steps must lead to the same mean loss and parameters on all variants.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from experiments.bench.hardware import has_torch
from experiments.bench.head import QUICK_WIDTHS
from experiments.bench.ist import IN_TURN, PROCESSES, SERVER, round_case
from experiments.bench.mlp_work import OPTIMIZERS, Work, make_work
from experiments.bench.rounds import Other, Rounds, flops_per_example, rounds_case
from experiments.bench.timing import Case
from jist.strategies import IST, DataParallel, LocalSGD, Strategy

WIDE = (4096, 8192, 8192, 8192, 35)
RELEASED = (4096, 4096, 4096, 35)
BATCH, EXAMPLES = 128, 4096
WIDE_STEPS, RELEASED_STEPS = 10, 20
# A worker's steps of the baselines, of which each trains the whole network.
BASELINE_STEPS = 2
CHECK_STEPS = 2
WORKERS = (1, 2, 4, 8)
# On a CPU every worker of PyTorch holds the whole network: 0.7 GB, and twice that in training; four
# of them and jist take 9 GB.
MOST_PROCESSES = 2
WIDE_BASELINES, RELEASED_WORKERS = (2,), (2, 4)
QUICK_WORKERS = (1,)
BASELINES: dict[str, type[Strategy]] = {"data parallel": DataParallel, "local SGD": LocalSGD}


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """The wide network by IST and the baselines, then the smaller one.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take small networks, by one worker, and the baselines once.
    """
    on_cpu = device == "cpu"
    work = wide_work(QUICK_WIDTHS if quick else WIDE)
    alone = subnet_flops(work, 1)
    for workers in QUICK_WORKERS if quick else WORKERS:
        with contextlib.ExitStack() as stack:
            variants = (PROCESSES,) if on_cpu and workers <= MOST_PROCESSES else (IN_TURN,)
            case = round_case(
                *(stack, work, device, workers, WIDE_STEPS, variants), check_steps=CHECK_STEPS
            )
            predicted = {"predicted_speedup": alone / subnet_flops(work, workers)}
            yield dataclasses.replace(case, facts={**case.facts, **predicted})
    yield from _baselines(work, device, QUICK_WORKERS if quick else WIDE_BASELINES)
    work = wide_work(QUICK_WIDTHS if quick else RELEASED)
    for workers in QUICK_WORKERS if quick else RELEASED_WORKERS:
        with contextlib.ExitStack() as stack:
            variants = (SERVER,) if on_cpu else (IN_TURN,)
            yield round_case(
                *(stack, work, device, workers, RELEASED_STEPS, variants), check_steps=CHECK_STEPS
            )
    if not quick:
        yield from _baselines(work, device, RELEASED_WORKERS)


def wide_work(widths: tuple[int, ...]) -> Work:
    """What all do with a network of these layer sizes."""
    return make_work(widths, optimizer="sgd", batch=BATCH, examples=EXAMPLES)


def subnet_flops(work: Work, workers: int) -> float:
    """Operations for an example in the subnet of one of n workers."""
    strategy = IST(work.model, OPTIMIZERS[work.optimizer], workers=workers, local_steps=1)
    return flops_per_example(strategy, work)


def baseline_case(
    stack: contextlib.ExitStack, work: Work, device: str, baseline: str, workers: int, steps: int
) -> Case:
    """Some steps of workers that train the whole network.

    Args:
        stack: ends processes and frees memory when the case is over.
        work: what to do.
        device: "cpu" or "gpu".
        baseline: name out of `BASELINES`.
        workers: number of workers n.
        steps: of each worker, a round.

    Raises:
        RuntimeError: a variant does other work.
    """
    strategy = BASELINES[baseline](
        work.model, OPTIMIZERS[work.optimizer], workers=workers, local_steps=steps
    )
    jist = Rounds(strategy, work)
    stack.callback(jist.free)

    def torch() -> Other:
        from experiments.bench.torch_workers import TorchWorkers

        given = (work.start, work.x, work.y)
        variant = stack.enter_context(TorchWorkers(workers, *given, optimizer=work.optimizer))
        return (
            variant.data_parallel if baseline == "data parallel" else variant.local_sgd,
            variant.arrays,
        )

    case = rounds_case(
        jist,
        work.order(workers, steps),
        {PROCESSES: torch} if device == "cpu" and has_torch() else {},
        check_steps=CHECK_STEPS,
    )
    return dataclasses.replace(case, name=f"{baseline}, {case.name}")


def _baselines(work: Work, device: str, all_workers: tuple[int, ...]) -> Iterator[Case]:
    for workers in all_workers:
        for baseline in BASELINES:
            with contextlib.ExitStack() as stack:
                yield baseline_case(stack, work, device, baseline, workers, BASELINE_STEPS)
