"""Regression: one or several numbers for each example."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jist.tasks.task import Task


def regression() -> Task:
    """Squared error, and the coefficient of determination R², which chooses the best epoch.

    Examples are {"x": [N, ...], "y": [N, ...]}; the model maps "x" to the shape of "y". R² is
    1 - sum (y - prediction)² / sum (y - mean y)² for each output, and the mean over the outputs.
    An output that never varies has an R² of 1 if it is met exactly, else of 0.
    """
    return Task(squared_error, _spread, _r2, best="r2", merge=_merge)


def squared_error(model: nnx.Module, batch: dict[str, Array]) -> Float[Array, ""]:
    """The squared error, its mean over the examples and outputs of {"x", "y"}.

    Raises:
        ValueError: the model's output has another shape than "y".
    """
    return jnp.mean(jnp.square(_residuals(model, batch)))


def _residuals(model: nnx.Module, batch: dict[str, Array]) -> Array:
    predicted = model(batch["x"])  # type: ignore[operator]  # any module
    if predicted.shape != batch["y"].shape:  # which would be broadcast against each other
        raise ValueError(
            'examples["y"] must have the shape of the model\'s output, '
            f"{list(predicted.shape)} of {len(predicted)} examples, got {list(batch['y'].shape)}"
        )
    return predicted - batch["y"]


def _spread(model: nnx.Module, batch: dict[str, Array]) -> dict[str, Any]:
    """Squared deviations, from the mean of the part: those from zero would lose their digits."""
    residuals, y = _residuals(model, batch), batch["y"]
    mean = jnp.mean(y, axis=0)
    return {
        "count": len(y),
        "mean": mean,
        "deviation": jnp.sum(jnp.square(y - mean), axis=0),
        "residual": jnp.sum(jnp.square(residuals), axis=0),
    }


def _merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Of both parts together (Chan, Golub, LeVeque: Updating Formulae, 1979)."""
    count, step = a["count"] + b["count"], b["mean"] - a["mean"]
    return {
        "count": count,
        "mean": a["mean"] + step * b["count"] / count,
        "deviation": a["deviation"]
        + b["deviation"]
        + np.square(step) * a["count"] * b["count"] / count,
        "residual": a["residual"] + b["residual"],
    }


def _r2(sums: dict[str, Any]) -> dict[str, float]:
    residual, deviation = sums["residual"], sums["deviation"]
    varies = deviation > 0
    share = residual / np.where(varies, deviation, 1)
    return {"r2": float(np.mean(np.where(varies, 1 - share, residual == 0)))}
