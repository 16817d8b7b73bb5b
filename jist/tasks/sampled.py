"""The sigmoid loss of an example's own labels and of some others, drawn in the place of all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jist.tasks.chunks import Labels


def sampled_sigmoid_loss(
    hidden: Float[Array, "batch width"],
    kernel: Float[Array, "width labels"],
    bias: Float[Array, " labels"],
    labels: Labels,
    negatives: Int[Array, " drawn"],
) -> Float[Array, ""]:
    """Estimates `jist.tasks.chunks.sigmoid_loss` from the outputs of few labels.

    The terms of an example's own labels are exact. Those of the L - n labels that it lacks are
    (L - n) times their mean over the drawn labels that it lacks, so that for labels drawn alike
    likely the mean over draws is the loss of all labels; of an example that has every drawn label
    they are missing.

    Args:
        hidden: h, what the output layer is given.
        kernel: W.
        bias: b.
        labels: of each example, each once, padded with -1.
        negatives: labels that were drawn, the same for all examples.
    """
    held = labels >= 0
    # A label of -1 takes the last one's column, and counts for nothing.
    columns = jnp.take(kernel, labels, axis=1).astype(hidden.dtype)  # [width, batch, most]
    own = jnp.einsum("bw,wbm->bm", hidden, columns) + bias[labels]
    exact = jnp.sum(jnp.where(held, jax.nn.softplus(own) - own, 0), axis=1)
    columns = jnp.take(kernel, negatives, axis=1).astype(hidden.dtype)
    others = jax.nn.softplus(hidden @ columns + bias[negatives])
    lacks = (negatives[None, :, None] != labels[:, None, :]).all(axis=2)
    mean = jnp.sum(jnp.where(lacks, others, 0), axis=1) / jnp.maximum(lacks.sum(axis=1), 1)
    return jnp.mean(exact + (kernel.shape[1] - held.sum(axis=1)) * mean)
