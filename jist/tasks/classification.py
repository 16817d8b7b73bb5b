"""Classification: one class for each example, out of as many as the model has outputs."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jist.ragged import batch_shapes
from jist.strategies.local import Examples, softmax_cross_entropy
from jist.tasks.task import Task


def classification() -> Task:
    """Softmax cross-entropy in nats, and accuracy, which chooses the best epoch.

    Examples are {"x": [N, ...], "y": i32 [N]}; the model maps "x" to logits [N, C], and "y" holds
    classes in [0, C).
    """
    return Task(softmax_cross_entropy, _correct, _accuracy, best="accuracy", check=_check)


def _correct(model: nnx.Module, batch: dict[str, Any]) -> dict[str, Any]:
    logits = model(batch["x"])  # type: ignore[operator]  # any classifier module
    correct = jnp.argmax(logits, axis=-1) == batch["y"]
    return {"correct": jnp.sum(correct), "count": len(correct)}


def _accuracy(sums: dict[str, Any]) -> dict[str, float]:
    return {"accuracy": sums["correct"] / sums["count"]}


def _check(model: nnx.Module, examples: Examples) -> None:
    labels = np.asarray(examples["y"])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f'examples["y"] must be integers [N], got {labels.dtype} {list(labels.shape)}'
        )
    shapes = batch_shapes(examples["x"], len(labels))
    logits = nnx.eval_shape(lambda model, x: model(x), model, shapes)
    if logits.ndim != 2:
        raise ValueError(f"model must return logits [N, C], got {list(logits.shape)}")
    lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
    if lowest < 0 or highest >= logits.shape[1]:
        raise ValueError(
            f'examples["y"] must lie in [0, {logits.shape[1]}), which are the model\'s outputs, '
            f"got {lowest} to {highest}"
        )
