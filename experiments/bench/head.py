"""The classifier head, one worker, one epoch of features in memory: jist beside PyTorch.

MLP 768-1000-1000-10 with standardised hidden layers, Adam with a learning rate of 1e-3, batch 64.
jist trains as `jist.strategies.Centralized` does, the epoch in one dispatch. PyTorch has its fused
batch normalisation and its fused Adam and reads nothing back before the end of the epoch; through
`torch.compile` go loss and gradients, on a GPU as CUDA graphs. First, from the same weights, 20
steps must lead to the same mean loss and parameters.
"""

import functools
from collections.abc import Iterator, Sequence

from experiments.bench.hardware import has_torch
from experiments.bench.mlp_work import OPTIMIZERS, Work, make_work
from experiments.bench.rounds import Other, Rounds, rounds_case
from experiments.bench.timing import Case
from jist.strategies import Centralized

WIDTHS = (768, 1000, 1000, 10)
BATCH = 64
EXAMPLES = {"cpu": 12_800, "gpu": 256_000}  # an epoch of some seconds
CHECK_STEPS = 20
# Widths differ, so that none can stand for another; two workers divide the hidden ones.
QUICK_WIDTHS, QUICK_EXAMPLES = (12, 16, 8, 5), 1280
TORCH_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
TORCH_VARIANTS = {"torch eager": False, "torch compiled": True}


def cases(device: str, *, quick: bool = False, compiled: bool = True) -> Iterator[Case]:
    """The one case.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take a small network.
        compiled: whether PyTorch runs through `torch.compile` as well.
    """
    widths, examples = (QUICK_WIDTHS, QUICK_EXAMPLES) if quick else (WIDTHS, EXAMPLES[device])
    work = make_work(widths, optimizer="adam", batch=BATCH, examples=examples)
    yield head_case(work, device, [name for name, c in TORCH_VARIANTS.items() if compiled or not c])


def head_case(
    work: Work, device: str, torch_variants: Sequence[str] = tuple(TORCH_VARIANTS)
) -> Case:
    """An epoch by all variants.

    Args:
        work: what to do; batches divide the examples.
        device: "cpu" or "gpu".
        torch_variants: names out of `TORCH_VARIANTS`.

    Raises:
        RuntimeError: a variant does other work.
    """
    steps = len(work.x) // work.batch
    strategy = Centralized(work.model, OPTIMIZERS[work.optimizer], local_steps=steps)
    others = {
        name: functools.partial(_torch_variant, name, work, device) for name in torch_variants
    }
    return rounds_case(
        Rounds(strategy, work),
        work.order(1, steps),
        others if has_torch() else {},
        check_steps=CHECK_STEPS,
    )


def _torch_variant(name: str, work: Work, device: str) -> Other:
    from experiments.bench.torch_mlp import TorchHead

    torch = TorchHead(
        *(work.start, work.x, work.y),
        optimizer=work.optimizer,
        device=TORCH_DEVICES[device],
        compiled=TORCH_VARIANTS[name],
    )
    return lambda order: torch(order[0]), torch.arrays
