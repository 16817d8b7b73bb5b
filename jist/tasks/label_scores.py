"""The scores that a model gives all labels, counted; and what makes them probabilities."""

import dataclasses
import functools
import operator
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from jist.label_probabilities import ScoreCounts, fit_scaling
from jist.ragged import count, take
from jist.tasks.output import last_layer

CHUNK = 8192  # labels: with 128 examples, 4 MB of logits
MOST_SCORES = 2**28  # that are counted: of 670,091 labels those of 400 examples
_AT_ONCE = 1024  # examples


def count_scores(model: nnx.Module, examples: Any, chunk: int = CHUNK) -> ScoreCounts:
    """The scores of all labels of some examples, counted some examples and labels at a time.

    Of very many labels fewer examples do (`thinned`).

    Args:
        model: calibrated, as for `jist.tasks.multilabel`.
        examples: {"x", "y"}, as for `jist.tasks.multilabel`; at least one.
        chunk: labels whose scores are computed at a time.

    Raises:
        FloatingPointError: a score is not finite.
    """
    kernel, _ = last_layer(model)
    some = thinned(examples, kernel.shape[1])
    return functools.reduce(operator.add, _parts(model, some, chunk))


def thinned(examples: Any, labels: int) -> Any:
    """Every so many of the examples, where all would have more than `MOST_SCORES` scores."""
    total = count(examples)
    apart = -(-total * labels // MOST_SCORES)
    return examples if apart == 1 else take(examples, np.arange(0, total, apart))


def nothing_fitted(model: nnx.Module, examples: Any) -> dict[str, float]:
    """In the place of `scaling_of`, where outputs are taken as they are."""
    return {}


def scaling_of(model: nnx.Module, examples: Any, *, chunk: int) -> dict[str, float]:
    """The temperature and the offset that are fitted on examples, as a `Task` gives them."""
    return fit_scaling(count_scores(model, examples, chunk))._asdict()


def _parts(model: nnx.Module, examples: Any, chunk: int) -> Iterator[ScoreCounts]:
    kernel, bias = last_layer(model)
    for first in range(0, count(examples), _AT_ONCE):
        part = take(examples, slice(first, first + _AT_ONCE))
        hidden, labels = _hidden(model, part["x"]), np.asarray(part["y"])
        for start in range(0, kernel.shape[1], chunk):
            size = min(chunk, kernel.shape[1] - start)
            scores = np.asarray(_scores(hidden, kernel, bias, start, size))
            found = ScoreCounts.of(scores, _held(labels - start, size))
            yield dataclasses.replace(found, examples=0 if start else len(labels))


def _held(places: Int[np.ndarray, "batch most"], size: int) -> np.ndarray:
    """Which of so many labels each example has, bool [batch, size]."""
    held = np.zeros((len(places), size), bool)
    row, column = np.nonzero((places >= 0) & (places < size))
    held[row, places[row, column]] = True
    return held


@nnx.jit
def _hidden(model: Any, x: Any) -> Array:
    return model.hidden(x)


@functools.partial(jax.jit, static_argnums=4)
def _scores(hidden: Array, kernel: Array, bias: Array, start: Array | int, size: int) -> Array:
    own = jax.lax.dynamic_slice_in_dim(kernel, start, size, axis=1).astype(hidden.dtype)
    return hidden @ own + jax.lax.dynamic_slice_in_dim(bias, start, size)
