"""Predictions of a trained classifier, and their loss and accuracy."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

Examples = Mapping[str, Array | np.ndarray]


@nnx.jit
def _logits(model: nnx.Module, x: Array | np.ndarray) -> Array:
    return model(x)  # type: ignore[operator]  # any classifier module


def predict(
    model: nnx.Module, x: Array | np.ndarray, batch_size: int = 8192
) -> Float[Array, "batch classes"]:
    """Logits [N, C] of a classifier, computed `batch_size` examples at a time."""
    return jnp.concatenate(
        [_logits(model, x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    )


def evaluate(model: nnx.Module, examples: Examples) -> dict[str, float]:
    """Loss and accuracy of a calibrated classifier.

    Args:
        model: the full network, in evaluation mode.
        examples: {"x": [N, ...], "y": i32 [N]}.

    Returns:
        As `scores`.
    """
    return scores(predict(model, examples["x"]), examples["y"])


def scores(
    logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> dict[str, float]:
    """Mean cross-entropy in nats, and accuracy.

    Args:
        logits: outputs of a classifier for N examples [N, C].
        labels: their classes [N].

    Returns:
        {"test_loss", "test_accuracy"}.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    correct = int(jnp.sum(jnp.argmax(logits, axis=-1) == labels))
    return {"test_loss": float(loss), "test_accuracy": correct / len(labels)}
