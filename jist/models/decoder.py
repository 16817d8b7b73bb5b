"""The decoder of a masked autoencoder: predicts the pixels of missing patches from visible ones.

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377), §3. In place of
every missing patch it sees one learned mask token; their positions distinguish them.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jist.models.positions import Position, sincos_positions
from jist.models.primitives import layer_norm, linear
from jist.models.transformer import blocks, new_layer_norm
from jist.models.vit import ViTConfig


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder; the defaults are those of all three published models.

    Attributes:
        dim: width of a token; a multiple of `heads` and of 4.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_dim: width of the hidden layer in a block's MLP.

    Raises:
        ValueError: a size is not positive or does not divide as above.
    """

    dim: int = 512
    depth: int = 8
    heads: int = 16
    mlp_dim: int = 2048

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive, got {getattr(self, field.name)}")
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(
                f"dim must be a multiple of heads and of 4, got dim={self.dim}, heads={self.heads}"
            )


class Decoder(nnx.Module):
    """Predicts the pixels of every patch from the encoded visible ones.

    Args:
        encoder: shape of the encoder.
        config: shape of the decoder.
        dtype: compute type.
        rngs: initialisation, as the encoder's.
    """

    def __init__(
        self, encoder: ViTConfig, config: DecoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.config = config
        self.patches = encoder.patches
        self.dtype = jnp.dtype(dtype)
        xavier = nnx.initializers.xavier_uniform()
        self.embed = nnx.Linear(encoder.dim, config.dim, kernel_init=xavier, dtype=dtype, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.dim,)))
        self.positions = Position(jax.device_put(sincos_positions(config.dim, encoder.grid)))
        self.blocks = nnx.List(
            blocks(
                config.dim,
                config.depth,
                config.heads,
                config.mlp_dim,
                encoder.layer_norm_eps,
                dtype=dtype,
                rngs=rngs,
            )
        )
        self.norm = new_layer_norm(config.dim, encoder.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.pixels = nnx.Linear(
            config.dim,
            encoder.channels * encoder.patch_size**2,
            kernel_init=xavier,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self,
        tokens: Float[Array, "batch tokens dim"],
        keep: Int[Array, "batch kept"] | None,
    ) -> Float[Array, "batch patches pixels"]:
        """Pixels [B, L, p²·C] of every patch from the encoder's tokens [B, 1 + K, D].

        A token whose index in `keep` is L is padding and has no influence.
        """
        x = linear(self.embed, tokens)
        if keep is not None:
            rows = jnp.arange(len(x))[:, None]
            mask_token = self.mask_token[...].astype(self.dtype)
            filled = jnp.broadcast_to(mask_token, (len(x), self.patches, self.config.dim))
            filled = filled.at[rows, keep].set(x[:, 1:], mode="drop")
            x = jnp.concatenate([x[:, :1], filled], axis=1)
        return self._pixels(x + self.positions[...].astype(self.dtype))[:, 1:]

    def missing(
        self,
        tokens: Float[Array, "batch tokens dim"],
        keep: Int[Array, "batch kept"],
        missing: Int[Array, "batch missing"],
        valid: Bool[Array, "batch all_tokens"] | None = None,
    ) -> Float[Array, "batch missing pixels"]:
        """Pixels [B, M, p²·C] of M missing patches alone.

        The order of tokens does not matter to a Transformer. Missing ones come first here, so no
        tokens have to be interleaved and the last block computes only the missing ones. `valid`
        [B, M + 1 + K], in this order (missing, CLS, kept), is False for padding; None if there is
        none.
        """
        positions = self.positions[...].astype(self.dtype)
        seen = jnp.pad(1 + keep, [(0, 0), (1, 0)])  # CLS, which lies at 0
        visible = linear(self.embed, tokens) + positions[seen]
        guessed = self.mask_token[...].astype(self.dtype) + positions[1 + missing]
        return self._pixels(jnp.concatenate([guessed, visible], axis=1), valid, missing.shape[1])

    def _pixels(
        self,
        x: Float[Array, "batch tokens dim"],
        valid: Bool[Array, "batch tokens"] | None = None,
        wanted: int | None = None,
    ) -> Float[Array, "batch outputs pixels"]:
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, valid)
        return linear(self.pixels, layer_norm(self.norm, last(x, valid, wanted)))
