"""Group normalisation whose groups can be dealt to workers.

Wu and He, Group Normalization (arXiv 1803.08494), eq. (7). `nnx.GroupNorm` fixes how many groups
there are; here it follows from the parameters, so that a subnetwork may have fewer, each whole.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class GroupNorm(nnx.Module):
    """Standardises every group of channels of every example, then scales and shifts each channel.

    Args:
        channels: number of channels C.
        groups: number of groups G; divides C.
        neurons: the name of the groups, if they are dealt. What has the channels as an axis beside
            this names the same: `(neurons, C // G)`.
        epsilon: added to the variance.
        rngs: not drawn from: scales are 1 and shifts 0.

    Raises:
        ValueError: `groups` does not divide `channels`.

    >>> norm = GroupNorm(6, 3, neurons="stage", rngs=nnx.Rngs(0))
    >>> norm.scale.get_metadata()["neurons"]
    (('stage', 2),)
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        neurons: str | None = None,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide channels={channels}, got {groups}")
        self.size = channels // groups
        self.epsilon = epsilon
        named = (None if neurons is None else (neurons, self.size),)
        self.scale = nnx.Param(jnp.ones(channels), neurons=named)
        self.bias = nnx.Param(jnp.zeros(channels), neurons=named)

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The normalised x [B, ..., C]; the variance is the biased one over places and channels."""
        grouped = x.reshape(*x.shape[:-1], -1, self.size)
        over = (*range(1, x.ndim - 1), x.ndim)
        mean = jnp.mean(grouped, axis=over, keepdims=True)
        var = jnp.var(grouped, axis=over, keepdims=True)
        hat = (grouped - mean) * jax.lax.rsqrt(var + self.epsilon)
        return hat.reshape(x.shape) * self.scale[...] + self.bias[...]
