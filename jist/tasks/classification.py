"""Classification: one class for each example, out of as many as the model has outputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from jist.models.mixup import mixed
from jist.ragged import batch_shapes
from jist.strategies.local import Examples, Loss, softmax_cross_entropy
from jist.tasks.task import Task


def classification(
    *, label_smoothing: float = 0.0, mixtures: bool = False, examples_at_once: int = 8192
) -> Task:
    """Softmax cross-entropy in nats, and accuracy, which chooses the best epoch.

    Examples are {"x": [N, ...], "y": i32 [N]}; "x" may be a tree of arrays. The model maps "x" to
    logits [N, C], and "y" holds classes in [0, C).

    Args:
        label_smoothing: share e of the target that is spread over all classes, in [0, 1) (Szegedy
            et al., arXiv 1512.00567, §7); of the reported loss as well.
        mixtures: whether the loss is that of mixtures of the examples, which the model draws in
            training mode (`jist.models.Classifier`).
        examples_at_once: as of `Task`.

    Raises:
        ValueError: `label_smoothing` lies outside [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    return Task(
        _loss(label_smoothing, mixtures),
        _correct,
        _accuracy,
        best="accuracy",
        check=_check,
        examples_at_once=examples_at_once,
    )


def _loss(smoothing: float, mixtures: bool) -> Loss:
    if not smoothing and not mixtures:
        return softmax_cross_entropy

    def cross_entropy(model: nnx.Module, batch: Examples) -> Float[Array, ""]:
        x, y = batch["x"], batch["y"]
        mixture = model.mixture(len(y)) if mixtures else None  # type: ignore[operator]
        logits = model(x) if mixture is None else model(x, mixture)  # type: ignore[operator]
        targets = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), smoothing)
        if mixture is not None:
            targets = mixed(targets, mixture)
        return optax.softmax_cross_entropy(logits, targets).mean()

    return cross_entropy


def _correct(model: nnx.Module, batch: Examples) -> dict[str, Any]:
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
    # Two, because a standardisation in training refuses one alone.
    logits = jax.eval_shape(_logits, *nnx.split(model), batch_shapes(examples["x"], 2))
    if logits.ndim != 2:
        got = ", ".join(["N", *map(str, logits.shape[1:])])
        raise ValueError(f"model must return logits [N, C], got [{got}]")
    lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
    if lowest < 0 or highest >= logits.shape[1]:
        raise ValueError(
            f'examples["y"] must lie in [0, {logits.shape[1]}), which are the model\'s outputs, '
            f"got {lowest} to {highest}"
        )


# JAX remembers what it has traced: test images ask for no more than training images did.
@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef: nnx.GraphDef, variables: Any, x: Any) -> Any:
    return nnx.merge(graphdef, variables)(x)
