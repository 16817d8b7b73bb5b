"""Many labels for each example, out of very many: extreme classification.

Metrics are those of the Extreme Classification Repository (Bhatia et al., 2016): precision, nDCG
and propensity-scored precision of the k labels with the greatest logits, and recall.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jist.label_probabilities import Scaling
from jist.ragged import Ragged, count, take
from jist.strategies.local import Examples
from jist.tasks.chunks import top_labels
from jist.tasks.label_loss import LabelLoss
from jist.tasks.label_scores import CHUNK, nothing_fitted, scaling_of
from jist.tasks.output import output_layer
from jist.tasks.task import Task

KS = (1, 3, 5)


def multilabel(
    *,
    inverse_propensities: Float[np.ndarray, " labels"] | None = None,
    loss: str = "sigmoid",
    chunk: int = CHUNK,
) -> Task:
    """A loss over all labels, and ranking metrics; precision at 1 chooses the best epoch.

    Examples are {"x": ..., "y": i32 [N, most]}, each example's labels, each once, padded with -1,
    or rows of unequal length (`jist.ragged.Ragged`). The model gives what its output layer takes as
    `hidden(x)`, and that layer as `last`, as `jist.models.MLP` and `SparseMLP` do: neither all
    logits of a batch nor their gradient are ever held. Where a model draws labels in training, as
    `negatives`, the sigmoid loss is estimated from those and from an example's own
    (`jist.tasks.sampled`); reported losses are of all labels.

    Metrics, for k in 1, 3, 5: `precision_at_k`, the share of the k best labels that an example has,
    and `ps_precision_at_k`, the same weighted by inverse propensities, over the greatest value that
    it can have; both over all examples. `ndcg_at_k` and `recall_at_k`, means over those that have a
    label. Examples that are set apart fit a scaling, which makes outputs probabilities of labels
    (`jist.label_probabilities`); not by squared errors, whose outputs estimate these themselves.

    Args:
        inverse_propensities: of each label, as `inverse_propensities`; without, there are no
            propensity-scored metrics.
        loss: "sigmoid", binary cross-entropy of every label, its sum over the labels; "softmax",
            cross-entropy of the softmax over all labels, its mean over an example's labels, both in
            nats; or "squared", the squared error of every label, its sum over the labels. The mean
            over the examples.
        chunk: labels whose logits are computed at a time.

    Raises:
        ValueError: an unknown loss, or `chunk` is not positive.
    """

    def measure(model: nnx.Module, batch: dict[str, Any]) -> dict[str, Any]:
        hidden, kernel, bias = output_layer(model, batch["x"])
        _, best = top_labels(hidden, kernel, bias, min(max(KS), kernel.shape[1]), chunk)
        return _sums(best, batch["y"], inverse_propensities)

    return Task(
        LabelLoss(loss, chunk),
        measure,
        _metrics,
        best="precision_at_1",
        check=_check,
        fit=nothing_fitted if loss == "squared" else functools.partial(scaling_of, chunk=chunk),
        examples_at_once=1024,
    )


def inverse_propensities(
    frequencies: Int[np.ndarray, " labels"], examples: int, *, a: float = 0.55, b: float = 1.5
) -> Float[np.ndarray, " labels"]:
    """How much more a label counts for being missed more often, the rarer it is.

    1 / p = 1 + C (N_l + b)^-a with C = (log N - 1) (b + 1)^a (Jain et al., Extreme Multi-label Loss
    Functions, KDD 2016). The Repository takes a = 0.6, b = 2.6 for Amazon's and a = 0.5, b = 0.4
    for Wikipedia's data sets, and the defaults for all others.

    Args:
        frequencies: training examples N_l of each label.
        examples: training examples N.
        a: as above.
        b: as above.
    """
    c = (math.log(examples) - 1) * (b + 1) ** a
    return (1 + c * (frequencies + b) ** -a).astype(np.float32)


def prior_logits(
    frequencies: Int[np.ndarray, " labels"], examples: int
) -> Float[np.ndarray, " labels"]:
    """The bias of the output layer with which training by the sigmoid loss should begin.

    log (p / (1 - p)) of each label's frequency p, with half an example added to either side: all of
    very many labels would otherwise first have to learn that they are rare.

    Args:
        frequencies: training examples of each label.
        examples: training examples.
    """
    return np.log((frequencies + 0.5) / (examples - frequencies + 0.5)).astype(np.float32)


def prior_outputs(
    frequencies: Int[np.ndarray, " labels"], examples: int, loss: str
) -> Float[np.ndarray, " labels"]:
    """The bias of the output layer with which training by a loss should begin.

    Args:
        frequencies: training examples of each label.
        examples: training examples.
        loss: as of `multilabel`. By the softmax it is 0.
    """
    match loss:
        case "sigmoid":
            return prior_logits(frequencies, examples)
        case "squared":
            return (frequencies / examples).astype(np.float32)
    return np.zeros(len(frequencies), np.float32)


def predict_labels(
    model: nnx.Module,
    x: Examples,
    k: int,
    *,
    loss: str = "sigmoid",
    scaling: Scaling | None = None,
    batch_size: int = 1024,
    chunk: int = CHUNK,
) -> tuple[Float[np.ndarray, "examples k"], Int[np.ndarray, "examples k"]]:
    """The k best labels of every example, the best first.

    Args:
        model: calibrated, as for `multilabel`.
        x: what it is called with: tree of arrays [N, ...] and of ragged rows.
        k: how many labels, at most as many as there are.
        loss: that it was trained by, as of `multilabel`.
        scaling: that was fitted with it.
        batch_size: examples at a time.
        chunk: labels at a time.

    Returns:
        Probabilities [N, k], and numbers of labels. Without a scaling they are those of a sigmoid,
        which for a softmax are none, for its outputs know no threshold; of squared errors they are
        the outputs, cut to [0, 1].
    """
    scores, labels = best_labels(model, x, k, batch_size=batch_size, chunk=chunk)
    if scaling is None and loss == "squared":
        return np.clip(scores, 0, 1), labels
    scaling = Scaling(1.0, 0.0) if scaling is None else scaling
    return scaling.probabilities(scores).astype(np.float32), labels


def best_labels(
    model: nnx.Module, x: Examples, k: int, *, batch_size: int = 1024, chunk: int = CHUNK
) -> tuple[Float[np.ndarray, "examples k"], Int[np.ndarray, "examples k"]]:
    """The scores of the k best labels of every example, and their numbers; as `predict_labels`.

    Of fewer labels all are given.
    """
    k = min(k, model.last.kernel.shape[1])  # type: ignore[union-attr]  # as `_check` says
    parts = [
        _best(model, take(x, slice(first, first + batch_size)), k, chunk)
        for first in range(0, count(x), batch_size)
    ]
    scores, labels = (np.concatenate(some) for some in zip(*parts, strict=True))
    return scores, labels


@nnx.jit(static_argnums=(2, 3))
def _best(model: nnx.Module, x: Any, k: int, chunk: int) -> tuple[Array, Array]:
    return top_labels(*output_layer(model, x), k, chunk)


def _sums(
    best: Int[Array, "batch k"], labels: Int[Array, "batch most"], weights: np.ndarray | None
) -> dict[str, Any]:
    """What the metrics need of some examples, given their best labels."""
    hits = (best[:, :, None] == labels[:, None, :]).any(axis=2)
    number = jnp.sum(labels >= 0, axis=1)
    places = np.arange(1, 1 + max(best.shape[1], labels.shape[1]))
    gains = jnp.asarray(1 / np.log2(1 + places), jnp.float32)
    sums: dict[str, Any] = {"examples": len(best), "labelled": jnp.sum(number > 0)}
    for k in _ks(best.shape[1]):
        found = hits[:, :k]
        ideal = jnp.cumsum(gains)[jnp.clip(number, 1, k) - 1]
        sums[f"precision_at_{k}"] = jnp.sum(found) / k
        sums[f"ndcg_at_{k}"] = jnp.sum(found @ gains[:k] / ideal)
        sums[f"recall_at_{k}"] = jnp.sum(found.sum(axis=1) / jnp.maximum(number, 1))
        if weights is not None:
            padded = jnp.append(jnp.asarray(weights), 0)  # a label of -1 has a weight of 0
            sums[f"ps_precision_at_{k}"] = jnp.sum(jnp.where(found, padded[best[:, :k]], 0))
            sums[f"greatest_at_{k}"] = jnp.sum(-jnp.sort(-padded[labels], axis=1)[:, :k])
    return sums


def _ks(labels: int) -> list[int]:
    return [k for k in KS if k <= labels]


def _metrics(sums: dict[str, Any]) -> dict[str, float]:
    metrics = {}
    for name, value in sums.items():
        kind, _, k = name.partition("_at_")
        if kind == "precision":
            metrics[name] = value / sums["examples"]
        elif kind in ("ndcg", "recall"):
            metrics[name] = value / max(sums["labelled"], 1)
        elif kind == "ps_precision":
            metrics[name] = value / max(sums[f"greatest_at_{k}"], 1e-30)
    return {name: float(value) for name, value in metrics.items()}


def _check(model: nnx.Module, examples: Examples) -> None:
    if not hasattr(model, "hidden") or not hasattr(model, "last"):
        raise ValueError(
            "model must have `hidden` and `last`, as jist.models.MLP and SparseMLP do, "
            f"got {type(model).__name__}"
        )
    outputs = model.last.kernel.shape[1]  # type: ignore[union-attr]
    y = examples["y"]
    if isinstance(y, Ragged):
        labels, rows = np.asarray(y.entries), np.repeat(np.arange(len(y)), np.diff(y.offsets))
    else:
        y = np.asarray(y)
        if y.ndim != 2 or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(f'examples["y"] must be integers [N, most], got {y.dtype} {y.shape}')
        rows, columns = np.nonzero(y != -1)
        labels = y[rows, columns]
    if labels.size and not (labels.min() >= 0 and labels.max() < outputs):
        raise ValueError(
            f'examples["y"] must lie in [0, {outputs}), which are the model\'s outputs, or be -1, '
            f"got {labels.min()} to {labels.max()}"
        )
    places = rows * np.int64(outputs) + labels
    if len(np.unique(places)) < len(places):
        raise ValueError('examples["y"] must hold each label of an example once')
