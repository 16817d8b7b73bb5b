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


def sigmoid_slopes(part: Chunk) -> tuple[Float[Array, ""], Float[Array, "batch chunk"]]:
    """A chunk's part of B times `sigmoid_loss`, and the slopes of `sigmoid_loss` by its logits."""
    batch = len(part.logits)
    share = jnp.full((batch, 1), 1 / batch)
    return _sigmoid_terms(part), _less(jax.nn.sigmoid(part.logits) / batch, part, share)


def _sigmoid_loss_and_gradients(
    hidden: Array, kernel: Array, bias: Array, labels: Array, chunk: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Both at once, so that logits are not computed again for the backward pass."""
    total, gradients = _with_gradients(sigmoid_slopes, hidden, kernel, bias, labels, chunk)
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


def squared_slopes(part: Chunk) -> tuple[Float[Array, ""], Float[Array, "batch chunk"]]:
    """As `sigmoid_slopes`, of `squared_loss` less its constant."""
    batch = len(part.logits)
    share = jnp.full((batch, 1), 2 / batch)
    return _squared_terms(part), _less(2 * part.logits / batch, part, share)


def _squared_loss_and_gradients(
    hidden: Array, kernel: Array, bias: Array, labels: Array, chunk: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    total, gradients = _with_gradients(squared_slopes, hidden, kernel, bias, labels, chunk)
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


# Kernel W [width, labels] and bias b [labels] of an output layer, and a tree of arrays like these
# that its optimiser keeps, such as moments; the labels are along every last axis.
Output = tuple[Float[Array, "width labels"], Float[Array, " labels"], Any]


def train_output(
    slopes_of: Callable[[Chunk], tuple[Array, Array]],
    step: Callable[[Output, tuple[Array, Array]], Output],
    hidden: Float[Array, "batch width"],
    output: Output,
    labels: Labels,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, "batch width"], Output]:
    """One step of the output layer, every chunk's as soon as its gradient is there.

    So no gradient of the whole layer exists, which is as large as the layer.

    Args:
        slopes_of: `sigmoid_slopes` or `squared_slopes`.
        step: maps a chunk of the layer and the gradients by its kernel and bias to the chunk after
            the step; treats every number by itself.
        hidden: h, what the output layer is given.
        output: the layer.
        labels: of each example, each once.
        chunk: labels whose logits are computed at a time.

    Returns:
        The sum of what `slopes_of` gives of the loss; the loss's gradient by `hidden`, of the layer
        as it was; and the layer after the step.
    """
    total = output[0].shape[1]
    size = min(chunk, total)

    def visit(number: Array, carry: tuple[Array, Array, Output]) -> tuple[Array, Array, Output]:
        loss, dhidden, output = carry
        own = jax.tree.map(lambda leaf: _sliced(leaf, number, size), output)
        kernel, bias, _ = own
        part = _part(number, total, hidden, kernel, bias, labels)
        more, slopes = slopes_of(part)
        gradients = _gradients(hidden, slopes, kernel, bias)

        def stepped(own: Output, gradients: tuple[Array, Array]) -> Output:
            # What overlaps with the chunk before has taken its step.
            trained = step(own, gradients)
            return jax.tree.map(lambda new, old: jnp.where(part.new, new, old), trained, own)

        # In a branch of its own, which is always taken: else XLA fuses the step with its writing,
        # and copies each array that it would read after it was written.
        trained = jax.lax.cond(number >= 0, stepped, lambda own, _: own, own, gradients)
        output = jax.tree.map(
            lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, part.first, axis=-1),
            output,
            trained,
        )
        return loss + more, dhidden + _back(slopes, part, dhidden.dtype), output

    start = jnp.zeros(()), jnp.zeros_like(hidden), output
    return jax.lax.fori_loop(0, -(-total // size), visit, start)


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
        own, of_bias = _sliced(kernel, number, size), _sliced(bias, number, size)
        return visit(carry, _part(number, total, hidden, own, of_bias, labels))

    return jax.lax.fori_loop(0, -(-total // size), step, carry)


def _sliced(array: Array, number: Array, size: int) -> Array:
    """The chunk of this number, along the last axis."""
    first = jnp.minimum(number * size, array.shape[-1] - size)
    return jax.lax.dynamic_slice_in_dim(array, first, size, axis=-1)


def _part(
    number: Array, total: int, hidden: Array, kernel: Array, bias: Array, labels: Array
) -> Chunk:
    """The chunk of this number, of its part of the kernel and the bias."""
    size = kernel.shape[1]
    begin = number * size
    first = jnp.minimum(begin, total - size)
    logits = jnp.dot(hidden.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
    logits += bias
    columns = jnp.where((labels >= first) & (labels < first + size), labels - first, size)
    return Chunk(first, logits, kernel, columns, first + jnp.arange(size) >= begin)


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
        own = _gradients(hidden, slopes, dkernel, dbias)
        dkernel, dbias = (
            jax.lax.dynamic_update_slice_in_dim(whole, of, part.first, axis=-1)
            for whole, of in zip((dkernel, dbias), own, strict=True)
        )
        return loss + more, dhidden + _back(slopes, part, dhidden.dtype), dkernel, dbias

    start = (jnp.zeros(()), *map(jnp.zeros_like, (hidden, kernel, bias)))
    loss, *gradients = _over_chunks(visit, start, hidden, kernel, bias, labels, chunk)
    return loss, tuple(gradients)


def _gradients(
    hidden: Array, slopes: Array, kernel: Array, bias: Array
) -> tuple[Float[Array, "width chunk"], Float[Array, " chunk"]]:
    """By a chunk of the kernel and of the bias, of their types."""
    return jnp.dot(hidden.T, slopes).astype(kernel.dtype), jnp.sum(slopes, axis=0).astype(
        bias.dtype
    )


def _back(slopes: Array, part: Chunk, dtype: Any) -> Float[Array, "batch width"]:
    """A chunk's part of the gradient by what the layer is given."""
    new = jnp.where(part.new, slopes, 0).astype(part.kernel.dtype)
    return jnp.dot(new, part.kernel.T, preferred_element_type=dtype)


def _of_labels(part: Chunk) -> Float[Array, "batch most"]:
    """Logits of the examples' labels that are new in this chunk, 0 for the others."""
    rows = jnp.arange(len(part.columns))[:, None]
    logits = jnp.where(part.new, part.logits, 0)
    return logits.at[rows, part.columns].get(mode="fill", fill_value=0)


def _less(slopes: Array, part: Chunk, share: Array) -> Array:
    """Subtracts a share at the examples' labels."""
    rows = jnp.arange(len(part.columns))[:, None]
    return slopes.at[rows, part.columns].add(-share, mode="drop")
