"""A task: what a model is trained for, and how good it is at it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from jist.strategies.local import Examples, Loss


def add(a: Any, b: Any) -> Any:
    """The sum of two trees of arrays, leaf by leaf."""
    return jax.tree.map(np.add, a, b)


def _nothing(model: nnx.Module, batch: Any) -> dict[str, Any]:
    return {}


def _no_metrics(sums: Any) -> dict[str, float]:
    return {}


def _x(batch: Any) -> Any:
    return batch["x"]


def _unchecked(model: nnx.Module, examples: Examples) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is trained for.

    Examples are any tree of arrays [N, ...], and a batch is the same tree of some of their rows.
    Metrics are computed in parts: `measure` sees some examples at a time, in one compiled program,
    and what it returns is added up over all of them in float64 (int64, if it is integers).

    Attributes:
        loss: maps a model and a batch to a scalar, the mean over the batch. Give it to the strategy
            as well: `IST(model, optimizer, loss=task.loss, ...)`. It is reported as the metric
            "loss".
        measure: maps a model and a batch to a tree of arrays, sums over the batch: what the metrics
            need to know; nothing by default.
        metrics: maps the sums over all examples to the metrics by name; none by default.
        best: the metric that chooses the best epoch, "loss" or one of `metrics`.
        higher_is_better: its direction; by default the loss is better if lower, and every other
            metric if higher.
        inputs: maps a batch to what the model is called with, to measure statistics on the full
            network (`jist.calibrate`); `batch["x"]` by default.
        check: raises ValueError if a model cannot be trained or measured on examples; called
            before the first step. By default nothing is checked.
        fit: maps a calibrated model and examples that it was not trained on to numbers that make
            its outputs probabilities, kept with its checkpoint. Without it, where a training is
            given such examples, it is the temperature of a classifier (`jist.probabilities`).
        merge: puts what `measure` returned of two parts together, where that is no sum.
        examples_at_once: how many examples `measure` sees at a time, at most: lower it where a
            model's outputs for so many need too much memory.

    Raises:
        ValueError: `examples_at_once` is not positive.
    """

    loss: Loss
    measure: Callable[[nnx.Module, Any], Any] = _nothing
    metrics: Callable[[Any], Mapping[str, Any]] = _no_metrics
    best: str = "loss"
    higher_is_better: bool | None = None
    inputs: Callable[[Any], Any] = _x
    check: Callable[[nnx.Module, Any], None] = _unchecked
    fit: Callable[[nnx.Module, Any], Mapping[str, float]] | None = None
    merge: Callable[[Any, Any], Any] = add
    examples_at_once: int = 8192

    def __post_init__(self) -> None:
        if self.examples_at_once < 1:
            raise ValueError(f"examples_at_once must be at least 1, got {self.examples_at_once}")
        if self.higher_is_better is None:
            object.__setattr__(self, "higher_is_better", self.best != "loss")
