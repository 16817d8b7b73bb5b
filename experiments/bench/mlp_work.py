"""What the benchmarks of heads share: the network, its examples, and the proof of equal work."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from experiments.bench.hardware import unless_uncompilable
from experiments.bench.timing import JIST, Case, Variant, say, timed
from jist.data.order import worker_order
from jist.models import MLP
from jist.placement import place
from jist.strategies import Strategy

OPTIMIZERS = {"adam": optax.adam(1e-3), "sgd": optax.sgd(1e-2)}
# How far the mean losses may lie apart, relative; and the parameters, over the way they have come.
LOSS_TOLERANCE, PARAMETER_TOLERANCE = 1e-4, 1e-2

Arrays = list[np.ndarray]  # the kernels [in, out] of all layers, then the bias of the last
Play = Callable[[np.ndarray], float]  # an order [workers, steps, B] -> the mean loss
Other = tuple[Play, Callable[[], Arrays]]  # a variant beside jist, and what reads its parameters


@dataclasses.dataclass(frozen=True)
class Work:
    """What every variant does alike.

    Attributes:
        model: the network with its initial values, hidden layers standardised.
        optimizer: "adam" with a learning rate of 1e-3, or "sgd" with 1e-2.
        batch: examples B in a worker's batch.
        x: features [N, D], f32.
        y: classes [N], i32.
    """

    model: MLP
    optimizer: str
    batch: int
    x: np.ndarray
    y: np.ndarray

    def order(self, workers: int, steps: int) -> np.ndarray:
        """The examples of each worker in its first steps [workers, steps, B]."""
        return worker_order(
            0,
            examples=len(self.x),
            workers=workers,
            batch_size=self.batch,
            first_step=0,
            steps=steps,
        )

    @functools.cached_property
    def start(self) -> Arrays:
        """The initial values."""
        return arrays(nnx.to_pure_dict(nnx.state(self.model, nnx.Param)))


def make_work(widths: Sequence[int], *, optimizer: str, batch: int, examples: int) -> Work:
    """A network of these layer sizes, and noisy examples around a centre for every class."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((widths[-1], widths[0]), np.float32)
    y = generator.integers(0, widths[-1], examples).astype(np.int32)
    x = centres[y] + 3 * generator.standard_normal((examples, widths[0]), np.float32)
    model = MLP(tuple(widths), norm="standardize", rngs=nnx.Rngs(0))
    return Work(model, optimizer, batch, x, y)


class Rounds:
    """Rounds of a strategy of jist on the examples of some work.

    Args:
        strategy: which.
        work: its model and optimiser are the strategy's.
    """

    def __init__(self, strategy: Strategy, work: Work):
        self.strategy = strategy
        self.work = work
        self._state: Any = strategy.init(0)
        self._examples: Any = {
            name: place(array, strategy.replicated)
            for name, array in (("x", work.x), ("y", work.y))
        }

    def __call__(self, order: np.ndarray) -> float:
        """A round; the mean loss of all workers, once it is done."""
        self._state, metrics = self.strategy.round(self._state, self._examples, order)
        jax.block_until_ready(self._state.params)
        return float(metrics["loss"].mean())

    def arrays(self) -> Arrays:
        """The parameters, copied: the next round writes over them."""
        return [np.array(array) for array in arrays(self._state.params)]

    def free(self) -> None:
        """Lets go of the memory."""
        self._state = self._examples = None


def rounds_case(
    jist: Rounds,
    order: np.ndarray,
    others: Mapping[str, Callable[[], Other]],
    *,
    check_steps: int | None = None,
    conclude: Callable[[Mapping[str, Sequence[float]]], Mapping[str, Any]] = lambda seconds: {},
) -> Case:
    """A round by jist and by others, after they have shown that they do the same work.

    The first run of every variant is the round that is compared.

    Args:
        jist: the variant of jist.
        order: the examples of each worker in each of its steps [workers, steps, B].
        others: what starts the other variants, by name; one after the other, each checked at once.
        check_steps: steps of the round after which results are compared; all by default.
        conclude: as of `Case`.

    Raises:
        RuntimeError: a variant does other work.
    """
    work, first = jist.work, order[:, :check_steps]
    workers, steps = order.shape[:2]
    case = (
        f"{'-'.join(map(str, work.model.widths))}, batch {work.batch}, {workers} workers, "
        f"{steps} steps"
    )
    say(f"{case}: compiling and checking {JIST}")
    taken, ours = _first_round(jist, jist.arrays, first)
    variants = {JIST: Variant(functools.partial(jist, order), order.size, first_run_s=taken)}
    differences, left_out = {}, {}
    for name, start in others.items():
        say(f"{case}: compiling and checking {name}")
        play, read = start()
        done = unless_uncompilable(name, functools.partial(_first_round, play, read, first))
        if isinstance(done, str):
            left_out[f"{name} is left out"] = done
            continue
        taken, theirs = done
        differences[name] = compare(name, ours, theirs, work.start)
        variants[name] = Variant(functools.partial(play, order), order.size, first_run_s=taken)
    return Case(
        case,
        "examples/s",
        variants,
        flops=flops_per_example(jist.strategy, work),
        facts={"check_steps": first.shape[1], "differences": differences} | left_out,
        conclude=conclude,
    )


def _first_round(
    play: Play, read: Callable[[], Arrays], order: np.ndarray
) -> tuple[float, tuple[float, Arrays]]:
    """Seconds of a variant's first round (it compiles), its mean loss, and its parameters."""
    taken, loss = timed(lambda: play(order))
    return taken, (loss, read())


def arrays(params: Any) -> Arrays:
    """The arrays of an `MLP` with `norm="standardize"`; on a CPU where they lie, not copied."""
    layers = [params["layers"][i] for i in range(len(params["layers"]))]
    return [np.asarray(value) for value in (*(x["kernel"] for x in layers), layers[-1]["bias"])]


def flops_per_example(strategy: Strategy, work: Work) -> float:
    """Operations of a worker's matrix products for an example, its gradient included."""
    shapes = {"x": work.x, "y": work.y}
    return strategy.flops_per_step(shapes, work.batch) / work.batch


def compare(
    name: str, ours: tuple[float, Arrays], theirs: tuple[float, Arrays], start: Arrays
) -> dict[str, float]:
    """How far the results of a variant lie from those of jist.

    Args:
        name: of the other variant.
        ours: mean loss and parameters of jist after some training.
        theirs: those of the other variant.
        start: the parameters before.

    Returns:
        "loss": relative difference of the mean losses. "parameters": norm of the parameters'
        difference over that of jist's way from the start, of the layer where it is greatest.

    Raises:
        RuntimeError: they are further apart than `LOSS_TOLERANCE` or `PARAMETER_TOLERANCE`.
    """
    distances = [
        np.linalg.norm(b - a) / np.linalg.norm(a - before)
        for a, b, before in zip(ours[1], theirs[1], start, strict=True)
    ]
    differences = {
        "loss": abs(theirs[0] / ours[0] - 1),
        "parameters": float(np.max(distances)),  # NaN if any is
    }
    for what, allowed in (("loss", LOSS_TOLERANCE), ("parameters", PARAMETER_TOLERANCE)):
        if not differences[what] <= allowed:  # NaN is further apart than anything
            raise RuntimeError(
                f"{what} of {name} and of jist are {differences[what]:.2g} apart, more than "
                f"{allowed:g}, so the two do not do the same work and their times say nothing"
            )
    return differences
