"""Transformer blocks, of which encoder and decoder are made.

Those of Dosovitskiy et al., An Image Is Worth 16x16 Words (arXiv 2010.11929): normalised before
each sub-layer, an MLP with the exact GELU.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jist.models.primitives import gelu, layer_norm, linear
from jist.models.reconstruct import Reconstruct
from jist.models.reconstruct_scores import ReconstructScores
from jist.models.standardize import Scale


def new_layer_norm(
    dim: int, layer_norm_eps: float, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.LayerNorm:
    """A LayerNorm with the two-pass variance: the fast one loses digits where the mean is large."""
    return nnx.LayerNorm(
        dim, epsilon=layer_norm_eps, use_fast_variance=False, dtype=dtype, rngs=rngs
    )


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    How many heads there are is read from the kernels, so a subnetwork may have fewer; or, where
    `scores` is set, all heads with fewer channels, whose scores it scales up to estimate those of
    all channels. `correction` is for what a subnetwork lacks of outputs. `jist.models.name_neurons`
    sets both.
    """

    def __init__(self, dim: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        new_linear = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs
        )
        self.heads, self.width = heads, dim // heads  # of a whole network
        self.scores: Scale | ReconstructScores | None = nnx.data(None)
        self.correction: Scale | Reconstruct | None = nnx.data(None)
        self.qkv = new_linear(dim, 3 * dim)
        self.out = new_linear(dim, dim)

    def __call__(
        self,
        x: Float[Array, "batch tokens dim"],
        valid: Bool[Array, "batch tokens"] | None = None,
        wanted: int | None = None,
    ) -> Float[Array, "batch outputs dim"]:
        """The outputs of the first `wanted` tokens (or all), attending to the valid ones (or all).

        [B, T, D] -> [B, wanted, D].
        """
        dim = self.out.kernel.shape[0]  # of all heads together
        if wanted is None:
            query, key, value = self._by_head(linear(self.qkv, x))
        else:
            (query,) = self._by_head(linear(self.qkv, x[:, :wanted], slice(dim)))
            key, value = self._by_head(linear(self.qkv, x, slice(dim, None)))
        attended = None if valid is None else valid[:, None, None, :]
        query = query * self.width**-0.5
        if isinstance(self.scores, ReconstructScores):
            query, key = self.scores(self.qkv, query, key)
        elif self.scores is not None:
            query = self.scores(query)
        if jax.default_backend() != "cpu":
            x = jax.nn.dot_product_attention(query, key, value, mask=attended, scale=1.0)
            return self._joined(x)
        # XLA:CPU multiplies small matrices fastest if they are contiguous in memory.
        query, key, value = (tokens.swapaxes(1, 2) for tokens in (query, key, value))
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        if attended is not None:
            scores = jnp.where(attended, scores, -jnp.inf)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        x = jnp.einsum("bhqk,bhkd->bhqd", weights, value, preferred_element_type=jnp.float32)
        return self._joined(x.astype(value.dtype).swapaxes(1, 2))

    def _joined(
        self, x: Float[Array, "batch tokens heads width"]
    ) -> Float[Array, "batch tokens dim"]:
        """Projects the outputs of all heads."""
        x = x.reshape(*x.shape[:2], -1)
        return _read(self.out, x, self.correction)

    def _by_head(
        self, x: Float[Array, "batch tokens several"]
    ) -> Float[Array, "parts batch tokens heads width"]:
        """Splits fused queries, keys and values, or as many of them as there are."""
        dim = self.out.kernel.shape[0]
        heads = dim // self.width if self.scores is None else self.heads
        split = (x.shape[-1] // dim, heads, dim // heads)
        return jnp.moveaxis(x.reshape(*x.shape[:2], *split), 2, 0)


class Block(nnx.Module):
    """A pre-norm Transformer block: attention, then an MLP with the exact (erf) GELU."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        layer_norm_eps: float,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        norm = functools.partial(
            new_layer_norm, layer_norm_eps=layer_norm_eps, dtype=dtype, rngs=rngs
        )
        new_linear = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs
        )
        self.norm1 = norm(dim)
        self.attention = Attention(dim, heads, dtype=dtype, rngs=rngs)
        self.norm2 = norm(dim)
        self.mlp_in = new_linear(dim, mlp_dim)
        self.mlp_out = new_linear(mlp_dim, dim)
        # Of the MLP, as that of `Attention`.
        self.correction: Scale | Reconstruct | None = nnx.data(None)

    def __call__(
        self,
        x: Float[Array, "batch tokens dim"],
        valid: Bool[Array, "batch tokens"] | None = None,
        wanted: int | None = None,
    ) -> Float[Array, "batch outputs dim"]:
        """The tokens after the block.

        Args:
            x: tokens [B, T, D].
            valid: which of them are no padding [B, T]; no token attends to padding. None if all
                are.
            wanted: how many are wanted, from the first; in a last block, the others need not be
                computed. None for all.

        Returns:
            [B, T, D], or [B, wanted, D].
        """
        x = x[:, :wanted] + self.attention(layer_norm(self.norm1, x), valid, wanted)
        hidden = gelu(linear(self.mlp_in, layer_norm(self.norm2, x)))
        return x + _read(self.mlp_out, hidden, self.correction)


def _read(
    reader: nnx.Linear, x: Float[Array, "*rows inputs"], correction: Scale | Reconstruct | None
) -> Float[Array, "*rows outputs"]:
    """The linear map of a layer's activations, corrected for those that are not there."""
    if isinstance(correction, Reconstruct):
        return correction(reader, x)
    return linear(reader, x if correction is None else correction(x))


def blocks(
    dim: int,
    depth: int,
    heads: int,
    mlp_dim: int,
    layer_norm_eps: float,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> list[Block]:
    """A stack of blocks."""
    block = functools.partial(Block, dim, heads, mlp_dim, layer_norm_eps, dtype=dtype, rngs=rngs)
    return [block() for _ in range(depth)]
