"""Losses over very many labels, a chunk of them at a time, in forward and backward.

The output layer of 670,091 labels gives a batch of 128 examples 343 MB of logits, and as much again
of their gradient. Neither exists here: a chunk's logits and their gradient are computed, used and
forgotten. So is a chunk's part of the ranking: the best labels so far are all that is kept.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Labels = Int[Array, "batch most"]  # of each example, padded with -1


class Chunk(NamedTuple):
    """Some labels and their part of the output layer.

    The last chunk overlaps the one before it where the labels are no multiple of its size.

    Attributes:
        first: number of the first label.
        logits: of these labels [B, chunk].
        kernel: their part of the kernel [width, chunk].
        columns: where the examples' labels are in the chunk, its size if elsewhere [B, most].
        new: which labels were in no chunk before [chunk].
    """

    first: Array
    logits: Float[Array, "batch chunk"]
    kernel: Float[Array, "width chunk"]
    columns: Int[Array, "batch most"]
    new: Bool[Array, " chunk"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def sigmoid_loss(
    hidden: Float[Array, "batch width"],
    kernel: Float[Array, "width labels"],
    bias: Float[Array, " labels"],
    labels: Labels,
    chunk: int,
) -> Float[Array, ""]:
    """Binary cross-entropy of every label in nats: its sum for an example, the mean over these.

    log(1 + exp(z)) of every label less z of those that the example has, for logits z = h W + b.

    Args:
        hidden: h, what the output layer is given.
        kernel: W.
        bias: b.
        labels: of each example, each once.
        chunk: labels whose logits are computed at a time.
    """
    total = _summed(_sigmoid_terms, hidden, kernel, bias, labels, chunk)
    return total / len(hidden)


def _sigmoid_terms(part: Chunk) -> Float[Array, ""]:
    every = jnp.sum(jnp.where(part.new, jax.nn.softplus(part.logits), 0))
    return every - jnp.sum(_of_labels(part))


def _sigmoid_loss_and_gradients(
    hidden: Array, kernel: Array, bias: Array, labels: Array, chunk: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Both at once, so that logits are not computed again for the backward pass."""

    def terms(part: Chunk) -> tuple[Array, Array]:
        share = jnp.full((len(hidden), 1), 1 / len(hidden))
        return _sigmoid_terms(part), _less(jax.nn.sigmoid(part.logits) / len(hidden), part, share)

    total, gradients = _with_gradients(terms, hidden, kernel, bias, labels, chunk)
    return total / len(hidden), gradients


def _times(
    chunk: int, gradients: tuple[Array, Array, Array], slope: Array
) -> tuple[Array, Array, Array, None]:
    dhidden, dkernel, dbias = (gradient * slope.astype(gradient.dtype) for gradient in gradients)
    return dhidden, dkernel, dbias, None


sigmoid_loss.defvjp(_sigmoid_loss_and_gradients, _times)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def squared_loss(
    hidden: Float[Array, "batch width"],
    kernel: Float[Array, "width labels"],
    bias: Float[Array, " labels"],
    labels: Labels,
    chunk: int,
) -> Float[Array, ""]:
    """Squared error of every label: its sum for an example, the mean over these.

    (z - y)² for outputs z = h W + b and y = 1 of the labels that an example has, 0 of all others,
    so that z estimates the probability of a label. Arguments as for `sigmoid_loss`.
    """
    total = _summed(_squared_terms, hidden, kernel, bias, labels, chunk)
    return (total + jnp.sum(labels >= 0)) / len(hidden)


def _squared_terms(part: Chunk) -> Float[Array, ""]:
    """z² of every label less 2 z of those that the examples have; what is missing is constant."""
    every = jnp.sum(jnp.where(part.new, part.logits**2, 0))
    return every - 2 * jnp.sum(_of_labels(part))


def _squared_loss_and_gradients(
    hidden: Array, kernel: Array, bias: Array, labels: Array, chunk: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    def terms(part: Chunk) -> tuple[Array, Array]:
        share = jnp.full((len(hidden), 1), 2 / len(hidden))
        return _squared_terms(part), _less(2 * part.logits / len(hidden), part, share)

    total, gradients = _with_gradients(terms, hidden, kernel, bias, labels, chunk)
    return (total + jnp.sum(labels >= 0)) / len(hidden), gradients


squared_loss.defvjp(_squared_loss_and_gradients, _times)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def softmax_loss(
    hidden: Float[Array, "batch width"],
    kernel: Float[Array, "width labels"],
    bias: Float[Array, " labels"],
    labels: Labels,
    chunk: int,
) -> Float[Array, ""]:
    """Cross-entropy of a softmax over all labels, the mean over those that an example has, in nats.

    The mean of log sum exp(z) - z over the labels of an example, 0 if it has none, and of that the
    mean over the examples. Arguments as for `sigmoid_loss`.
    """
    return _softmax_loss_and_saved(hidden, kernel, bias, labels, chunk)[0]


def _softmax_loss_and_saved(
    hidden: Array, kernel: Array, bias: Array, labels: Array, chunk: int
) -> tuple[Array, tuple[Array, ...]]:
    def add(sums: tuple[Array, Array], part: Chunk) -> tuple[Array, Array]:
        here = jax.nn.logsumexp(jnp.where(part.new, part.logits, -jnp.inf), axis=1)
        return jnp.logaddexp(sums[0], here), sums[1] + jnp.sum(_of_labels(part), axis=1)

    start = jnp.full(len(hidden), -jnp.inf), jnp.zeros(len(hidden))
    log_sum, positive = _over_chunks(add, start, hidden, kernel, bias, labels, chunk)
    number = jnp.sum(labels >= 0, axis=1)
    losses = jnp.where(number > 0, log_sum - positive / jnp.maximum(number, 1), 0)
    return jnp.mean(losses), (hidden, kernel, bias, labels, log_sum)


def _softmax_gradients(
    chunk: int, saved: tuple[Array, ...], slope: Array
) -> tuple[Array, Array, Array, None]:
    hidden, kernel, bias, labels, log_sum = saved
    number = jnp.sum(labels >= 0, axis=1, keepdims=True)
    weight = jnp.where(number > 0, slope / len(hidden), 0)

    def terms(part: Chunk) -> tuple[Array, Array]:
        shares = weight * jnp.exp(part.logits - log_sum[:, None])
        return jnp.zeros(()), _less(shares, part, weight / jnp.maximum(number, 1))

    _, gradients = _with_gradients(terms, hidden, kernel, bias, labels, chunk)
    return *gradients, None


softmax_loss.defvjp(_softmax_loss_and_saved, _softmax_gradients)


def top_labels(
    hidden: Float[Array, "batch width"],
    kernel: Float[Array, "width labels"],
    bias: Float[Array, " labels"],
    k: int,
    chunk: int,
) -> tuple[Float[Array, "batch k"], Int[Array, "batch k"]]:
    """The k labels of the greatest logits, the best first, and of equals the first.

    Args:
        hidden: h, what the output layer is given.
        kernel: W.
        bias: b.
        k: how many, at most as many as there are labels.
        chunk: labels whose logits are computed at a time.

    Returns:
        Logits and numbers of labels.
    """

    def better(best: tuple[Array, Array], part: Chunk) -> tuple[Array, Array]:
        logits = jnp.where(part.new, part.logits, -jnp.inf)
        here, places = jax.lax.top_k(logits, min(k, logits.shape[1]))
        joined = jnp.concatenate([best[0], here], axis=1)
        numbers = jnp.concatenate([best[1], part.first + places], axis=1)
        kept, places = jax.lax.top_k(joined, k)
        return kept, jnp.take_along_axis(numbers, places, axis=1)

    rows = len(hidden)
    nothing = jnp.full((rows, k), -jnp.inf), jnp.full((rows, k), -1, jnp.int32)
    without = jnp.zeros((rows, 0), jnp.int32)
    return _over_chunks(better, nothing, hidden, kernel, bias, without, chunk)


def _over_chunks(
    visit: Callable[[Any, Chunk], Any],
    carry: Any,
    hidden: Array,
    kernel: Array,
    bias: Array,
    labels: Array,
    chunk: int,
) -> Any:
    total = kernel.shape[1]
    size = min(chunk, total)

    def step(number: Array, carry: Any) -> Any:
        begin = number * size
        first = jnp.minimum(begin, total - size)
        own = jax.lax.dynamic_slice_in_dim(kernel, first, size, axis=1)
        logits = jnp.dot(hidden.astype(own.dtype), own, preferred_element_type=jnp.float32)
        logits += jax.lax.dynamic_slice_in_dim(bias, first, size)
        columns = jnp.where((labels >= first) & (labels < first + size), labels - first, size)
        return visit(carry, Chunk(first, logits, own, columns, first + jnp.arange(size) >= begin))

    return jax.lax.fori_loop(0, -(-total // size), step, carry)


def _summed(
    terms: Callable[[Chunk], Array],
    hidden: Array,
    kernel: Array,
    bias: Array,
    labels: Array,
    chunk: int,
) -> Float[Array, ""]:
    """The sum of what `terms` gives of every chunk."""

    def add(total: Array, part: Chunk) -> Array:
        return total + terms(part)

    return _over_chunks(add, jnp.zeros(()), hidden, kernel, bias, labels, chunk)


def _with_gradients(
    terms: Callable[[Chunk], tuple[Array, Array]],
    hidden: Array,
    kernel: Array,
    bias: Array,
    labels: Array,
    chunk: int,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """The loss and its gradients by hidden, kernel and bias.

    `terms` gives a chunk's part of the loss, and the loss's gradient by its logits. Labels of an
    overlap get the same gradient twice, in the same place.
    """

    def visit(carry: tuple[Array, ...], part: Chunk) -> tuple[Array, ...]:
        loss, dhidden, dkernel, dbias = carry
        more, slopes = terms(part)
        own = jnp.dot(hidden.T, slopes).astype(dkernel.dtype)
        dkernel = jax.lax.dynamic_update_slice_in_dim(dkernel, own, part.first, axis=1)
        own = jnp.sum(slopes, axis=0).astype(dbias.dtype)
        dbias = jax.lax.dynamic_update_slice_in_dim(dbias, own, part.first, axis=0)
        new = jnp.where(part.new, slopes, 0).astype(part.kernel.dtype)
        dhidden += jnp.dot(new, part.kernel.T, preferred_element_type=dhidden.dtype)
        return loss + more, dhidden, dkernel, dbias

    start = (jnp.zeros(()), *map(jnp.zeros_like, (hidden, kernel, bias)))
    loss, *gradients = _over_chunks(visit, start, hidden, kernel, bias, labels, chunk)
    return loss, tuple(gradients)


def _of_labels(part: Chunk) -> Float[Array, "batch most"]:
    """Logits of the examples' labels that are new in this chunk, 0 for the others."""
    rows = jnp.arange(len(part.columns))[:, None]
    logits = jnp.where(part.new, part.logits, 0)
    return logits.at[rows, part.columns].get(mode="fill", fill_value=0)


def _less(slopes: Array, part: Chunk, share: Array) -> Array:
    """Subtracts a share at the examples' labels."""
    rows = jnp.arange(len(part.columns))[:, None]
    return slopes.at[rows, part.columns].add(-share, mode="drop")
