"""Predictions of a trained model, and its loss and metrics on examples."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jist.ragged import take
from jist.tasks import Examples, Task, classification, count

_CLASSIFICATION = classification()


@nnx.jit
def _outputs(model: nnx.Module, x: Examples) -> Array:
    return model(x)  # type: ignore[operator]  # any module


def predict(model: nnx.Module, x: Examples, batch_size: int = 8192) -> Float[Array, "batch ..."]:
    """Outputs [N, ...] of a model, a classifier's logits say, `batch_size` examples at a time."""
    return jnp.concatenate(
        [_outputs(model, take(x, slice(i, i + batch_size))) for i in range(0, count(x), batch_size)]
    )


def evaluate(
    model: nnx.Module, examples: Examples, task: Task = _CLASSIFICATION, *, split: str = "test"
) -> dict[str, float]:
    """Loss and metrics of a calibrated model, computed in parts.

    Args:
        model: the full network, in evaluation mode.
        examples: tree of arrays [N, ...], as the task takes them.
        task: what the model is for; classification by default.
        split: what the examples are, with which the names begin.

    Returns:
        {"test_loss", "test_accuracy"} of a classifier: the task's loss, which is the mean over the
        examples, and its metrics.

    Raises:
        ValueError: there are no examples, or the task's metrics are not those that it says.
    """
    total = count(examples)
    if not total:
        raise ValueError(f"{split} examples must be at least 1, got 0")
    losses, sizes, sums = [], [], None
    for first in range(0, total, task.examples_at_once):
        part = take(examples, slice(first, first + task.examples_at_once))
        loss, measured = jax.tree.map(_widened, _part(task, model, part))
        losses.append(loss)
        sizes.append(count(part))
        sums = measured if sums is None else task.merge(sums, measured)
    metrics = {name: float(value) for name, value in task.metrics(sums).items()}
    if "loss" in metrics or task.best not in ("loss", *metrics):
        raise ValueError(
            f"task.best must be 'loss' or one of task.metrics, which have other names than 'loss', "
            f"got {task.best!r} and {sorted(metrics)}"
        )
    metrics = {"loss": float(np.average(losses, weights=sizes))} | metrics
    return {f"{split}_{name}": value for name, value in metrics.items()}


@nnx.jit(static_argnums=0)
def _part(task: Task, model: nnx.Module, batch: Examples) -> tuple[Array, Examples]:
    # One program: what both compute of the model is computed once.
    return task.loss(model, batch), task.measure(model, batch)


def _widened(value: Array | int | float) -> np.ndarray:
    """On the host, in a type in which very many can be added."""
    array = np.asarray(value)
    return array.astype(np.float64 if jnp.issubdtype(array.dtype, jnp.floating) else np.int64)
