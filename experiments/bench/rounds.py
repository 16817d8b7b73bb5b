"""Rounds of a strategy of jist beside others, after the proof that all do the same work."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.bench.hardware import unless_uncompilable
from experiments.bench.timing import JIST, Case, Variant, say, timed
from jist.data.order import worker_order
from jist.placement import place
from jist.strategies import Strategy

# How far the mean losses may lie apart, relative; and the parameters, over the way they have come.
LOSS_TOLERANCE, PARAMETER_TOLERANCE = 1e-4, 1e-2

Arrays = list[np.ndarray]  # parameters, in an order of the work's own
Play = Callable[[np.ndarray], float]  # an order [workers, steps, B] -> the mean loss
Other = tuple[Play, Callable[[], Arrays]]  # a variant beside jist, and what reads its parameters


@dataclasses.dataclass(frozen=True)
class Work(abc.ABC):
    """What every variant does alike.

    Attributes:
        model: the network with its initial values.
        batch: examples B in a worker's batch.
        x: inputs: an array [N, ...], or a tree of them.
        y: classes [N], i32.
    """

    model: nnx.Module
    batch: int
    x: Any
    y: np.ndarray

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the work is called."""

    @abc.abstractmethod
    def arrays(self, params: Any) -> Arrays:
        """The arrays of jist's parameters that are compared; on a CPU where they lie."""

    @functools.cached_property
    def start(self) -> Arrays:
        """The initial parameters."""
        return self.arrays(nnx.to_pure_dict(nnx.state(self.model, nnx.Param)))

    def order(self, workers: int, steps: int) -> np.ndarray:
        """The examples of each worker in its first steps [workers, steps, B]."""
        return worker_order(
            0,
            examples=len(self.y),
            workers=workers,
            batch_size=self.batch,
            first_step=0,
            steps=steps,
        )


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
        self._examples: Any = jax.tree.map(
            lambda array: place(array, strategy.replicated), {"x": work.x, "y": work.y}
        )

    def __call__(self, order: np.ndarray) -> float:
        """A round; the mean loss of all workers, once it is done."""
        self._state, metrics = self.strategy.round(self._state, self._examples, order)
        jax.block_until_ready(self._state.params)
        return float(metrics["loss"].mean())

    def arrays(self) -> Arrays:
        """The parameters, copied: the next round writes over them."""
        return [np.array(array) for array in self.work.arrays(self._state.params)]

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
    case = f"{work.name}, batch {work.batch}, {workers} workers, {steps} steps"
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
        difference over that of jist's way from the start, of the array where it is greatest.

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
