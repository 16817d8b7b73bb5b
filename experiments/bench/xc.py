"""Extreme classification at the size of Amazon-670k: jist beside PyTorch.

135,909 sparse features, one standardised hidden layer of 512, 670,091 labels (Yuan et al., VLDB
2022, §5), on synthetic examples of that shape; binary cross-entropy of every label, plain SGD,
batch 128, one worker. jist computes the loss a chunk of labels at a time, and trains the output
layer so (`FusedOutput`); PyTorch sums rows with `nn.EmbeddingBag`, whose gradient is sparse, and
has all logits at once. First, on a network of a hundredth of the size, some steps must lead to the
same mean loss and parameters. Memory is what a process of its own holds at most, less what it held
before the network was there.
"""

import functools
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.bench.hardware import has_torch
from experiments.bench.mlp_work import arrays
from experiments.bench.rounds import compare
from experiments.bench.timing import JIST, Case, Variant, say, timed
from jist.data.order import worker_order
from jist.data.sparse import SparseExamples
from jist.data.sparse.synthetic import FEATURES, LABELS, AmazonLike
from jist.models import SparseMLP, as_shapes
from jist.strategies import Centralized, FusedOutput
from jist.tasks import multilabel, prior_logits

TORCH = "torch eager"
WIDTHS, CHECK_WIDTHS = (FEATURES, 512, LABELS), (FEATURES // 100, 64, LABELS // 100)
QUICK_WIDTHS = (90, 12, 70)
BATCH, EXAMPLES, STEPS, CHECK_STEPS = 128, 4096, 2, 5
LR = 0.1


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """The one case.

    Args:
        device: "cpu" or "gpu"; on a GPU jist alone is measured.
        quick: whether to take a small network, whose memory is not measured.
    """
    with_torch = device == "cpu" and has_torch()
    facts: dict[str, Any] = {"synthetic": True}
    if with_torch:
        facts["differences"] = {TORCH: check(QUICK_WIDTHS if quick else CHECK_WIDTHS)}
    if device == "cpu" and not quick:
        names = (JIST, TORCH) if with_torch else (JIST,)
        facts["peak_bytes"] = {name: peak_bytes(name) for name in names}
    yield timing_case(QUICK_WIDTHS if quick else WIDTHS, facts, with_torch=with_torch)


def check(widths: tuple[int, int, int]) -> dict[str, float]:
    """How far PyTorch's mean loss and parameters lie from jist's after `CHECK_STEPS` steps.

    Raises:
        RuntimeError: too far.
    """
    examples = _examples(widths)
    order = _order(CHECK_STEPS)
    jist = Jist(widths, examples)
    start, torch = jist.arrays(), _torch(examples, jist.arrays())
    ours = jist(order), jist.arrays()
    theirs = torch(order), torch.arrays()
    return compare(TORCH, ours, theirs, start)


def timing_case(widths: tuple[int, int, int], facts: dict[str, Any], *, with_torch: bool) -> Case:
    """Some steps by both variants.

    Args:
        widths: features, hidden neurons, labels.
        facts: what was found before.
        with_torch: whether PyTorch runs, too.
    """
    examples, order = _examples(widths), _order(STEPS)
    jist = Jist(widths, examples)
    start = jist.arrays() if with_torch else []
    say(f"{widths}: compiling {JIST}")
    run = functools.partial(jist, order)
    variants = {JIST: Variant(run, order.size, first_run_s=timed(run)[0])}
    if with_torch:
        torch = _torch(examples, start)
        variants[TORCH] = Variant(functools.partial(torch, order), order.size)
    name = f"{'-'.join(map(str, widths))}, batch {BATCH}, {STEPS} steps"
    return Case(name, "examples/s", variants, flops=jist.flops / BATCH, facts=facts)


class Jist:
    """One worker trains the whole network by plain SGD.

    Args:
        widths: features, hidden neurons, labels.
        examples: to train on.
    """

    def __init__(self, widths: tuple[int, int, int], examples: SparseExamples):
        prior = prior_logits(examples.label_frequencies, len(examples))

        def draw(key: jax.Array) -> Any:
            kernels = jax.tree.map(functools.partial(_drawn_by_rows, key), params)
            kernels["layers"][1]["bias"] = jnp.asarray(prior)
            return kernels

        model = as_shapes(lambda: SparseMLP(widths, rngs=nnx.Rngs(0)))
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        optimizer = FusedOutput(optax.sgd(LR))
        loss = multilabel().loss
        self._strategy = Centralized(model, optimizer, local_steps=STEPS, loss=loss)
        self._state: Any = self._strategy.init(0, draw)
        self._examples = jax.device_put(examples.arrays, self._strategy.replicated)

    def __call__(self, order: np.ndarray) -> float:
        """Trains on the rows [steps, B]; the mean loss."""
        self._state, metrics = self._strategy.round(self._state, self._examples, order[None])
        jax.block_until_ready(self._state.params)
        return float(metrics["loss"].mean())

    @property
    def flops(self) -> float:
        """Operations of the matrix products of a step."""
        return self._strategy.flops_per_step(self._examples, BATCH)

    def arrays(self) -> list[np.ndarray]:
        """The parameters, copied: the next round writes over them."""
        return [np.array(array) for array in arrays(self._state.params)]


def peak_bytes(name: str) -> int:
    """The most memory that a variant holds over `STEPS` steps, by a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    say(f"memory of {name}")
    child = subprocess.run(
        [sys.executable, "-m", "experiments.bench.xc", name],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed:\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])


def _play(name: str) -> int:
    examples, order = _examples(WIDTHS), _order(STEPS)
    if name == TORCH:
        import experiments.bench.torch_sparse  # noqa: F401  # its import is no part of it
    before = _held()
    (Jist(WIDTHS, examples) if name == JIST else _torch(examples, _drawn()))(order)
    return _held() - before


def _drawn() -> list[np.ndarray]:
    """Initial values of the size, for memory alone."""
    features, width, labels = WIDTHS
    generator = np.random.default_rng(0)
    shapes = ((features, width), (width, labels), (labels,))
    return [generator.standard_normal(shape, np.float32) * np.float32(0.04) for shape in shapes]


def _held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _drawn_by_rows(key: jax.Array, of: jax.ShapeDtypeStruct) -> jax.Array:
    """Values of a kernel; drawn at once they would need three times its memory on a CPU."""
    keys = jax.random.split(jax.random.fold_in(key, of.shape[0]), of.shape[0])
    row = of.shape[1:]
    return jax.lax.map(lambda key: jax.random.normal(key, row) / of.shape[0] ** 0.5, keys)


def _torch(examples: SparseExamples, start: list[np.ndarray]) -> Any:
    """PyTorch's side, which writes over the initial values."""
    from experiments.bench.torch_sparse import TorchSparse

    return TorchSparse(start, examples.features, examples.labels, lr=LR)


def _examples(widths: tuple[int, int, int]) -> SparseExamples:
    return AmazonLike(widths[0], widths[2]).examples("train", EXAMPLES)


def _order(steps: int) -> np.ndarray:
    return worker_order(
        0, examples=EXAMPLES, workers=1, batch_size=BATCH, first_step=0, steps=steps
    )[0]


if __name__ == "__main__":
    print(json.dumps(_play(sys.argv[1])))
