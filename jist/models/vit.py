"""The encoder of a masked autoencoder: a Vision Transformer that sees only the visible patches.

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377); the blocks are those
of Dosovitskiy et al., An Image Is Worth 16x16 Words (arXiv 2010.11929), normalised before each
sub-layer. Masked patches are dropped before the first block, so the cost falls with their number.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jist.models.positions import Position, sincos_positions
from jist.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Shape of an encoder; the defaults are ViT-Base/16 at 224 pixels.

    Attributes:
        image_size: height and width of an image in pixels.
        patch_size: height and width of a patch in pixels; divides `image_size`.
        dim: width D of a token; a multiple of `heads`, and of 4 for the sin-cos positions.
        depth: number of blocks.
        heads: number of attention heads.
        mlp_dim: width of the hidden layer in a block's MLP.
        layer_norm_eps: epsilon of every LayerNorm.

    Raises:
        ValueError: a size is not positive or does not divide as above.
    """

    image_size: int = 224
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive, got {getattr(self, field.name)}")
        for whole, part in (("image_size", "patch_size"), ("dim", "heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} must be a multiple of {part}, "
                    f"got {whole}={getattr(self, whole)}, {part}={getattr(self, part)}"
                )
        if self.dim % 4:
            raise ValueError(f"dim must be a multiple of 4, got {self.dim}")

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches L of an image."""
        return self.grid**2

    @classmethod
    def base(cls) -> "ViTConfig":
        """ViT-Base/16, 86 M parameters."""
        return cls()

    @classmethod
    def large(cls) -> "ViTConfig":
        """ViT-Large/16, 304 M parameters."""
        return cls(dim=1024, depth=24, heads=16, mlp_dim=4096)

    @classmethod
    def huge(cls) -> "ViTConfig":
        """ViT-Huge/14, 632 M parameters."""
        return cls(patch_size=14, dim=1280, depth=32, heads=16, mlp_dim=5120)

    @classmethod
    def nano(cls, image_size: int = 32, patch_size: int = 4) -> "ViTConfig":
        """A third of ViT-Tiny's depth, for small images on a CPU, 1.8 M parameters."""
        return cls(image_size, patch_size, dim=192, depth=4, heads=3, mlp_dim=768)

    @classmethod
    def tiny(cls, image_size: int = 32, patch_size: int = 4) -> "ViTConfig":
        """ViT-Tiny for small images, 5.4 M parameters."""
        return cls(image_size, patch_size, dim=192, depth=12, heads=3, mlp_dim=768)

    @classmethod
    def small(cls, image_size: int = 32, patch_size: int = 4) -> "ViTConfig":
        """ViT-Small for small images, 21 M parameters."""
        return cls(image_size, patch_size, dim=384, depth=12, heads=6, mlp_dim=1536)


def patchify(
    images: Float[Array, "batch side side channels"], patch_size: int
) -> Float[Array, "batch patches pixels"]:
    """Cuts images into patches, row by row; a patch is flattened as (row, column, channel)."""
    batch, side, _, channels = images.shape
    grid = side // patch_size
    images = images.reshape(batch, grid, patch_size, grid, patch_size, channels)
    return images.swapaxes(2, 3).reshape(batch, grid**2, patch_size**2 * channels)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, x Φ(x), by the error function, which costs less than `jax.nn.gelu`'s erfc."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, dim: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs
        )
        self.heads = heads
        self.qkv = linear(dim, 3 * dim)
        self.out = linear(dim, dim)

    def __call__(
        self, x: Float[Array, "batch tokens dim"], valid: Bool[Array, "batch tokens"] | None = None
    ) -> Float[Array, "batch tokens dim"]:
        """What every token gathers from all of them, or from the valid ones [B, T, D]."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        attended = None if valid is None else valid[:, None, None, :]
        if jax.default_backend() != "cpu":
            x = jax.nn.dot_product_attention(
                qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], mask=attended
            )
            return self.out(x.reshape(batch, tokens, dim))
        # XLA:CPU multiplies small matrices fastest where they lie one after the other.
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        scores = jnp.einsum("bhqd,bhkd->bhqk", query * (dim // self.heads) ** -0.5, key)
        if attended is not None:
            scores = jnp.where(attended, scores, -jnp.inf)
        x = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), value)
        return self.out(x.swapaxes(1, 2).reshape(batch, tokens, dim))


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
        # The two-pass variance: the fast one loses digits on tokens with a large mean.
        norm = functools.partial(
            nnx.LayerNorm, epsilon=layer_norm_eps, use_fast_variance=False, dtype=dtype, rngs=rngs
        )
        linear = functools.partial(
            nnx.Linear, kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs
        )
        self.norm1 = norm(dim)
        self.attention = Attention(dim, heads, dtype=dtype, rngs=rngs)
        self.norm2 = norm(dim)
        self.mlp_in = linear(dim, mlp_dim)
        self.mlp_out = linear(mlp_dim, dim)

    def __call__(
        self, x: Float[Array, "batch tokens dim"], valid: Bool[Array, "batch tokens"] | None = None
    ) -> Float[Array, "batch tokens dim"]:
        """The tokens [B, T, D] after the block; those that are not valid are attended by none."""
        x = x + self.attention(self.norm1(x), valid)
        return x + self.mlp_out(gelu(self.mlp_in(self.norm2(x))))


class MAEEncoder(nnx.Module):
    """The encoder of a masked autoencoder.

    Args:
        config: its shape.
        dtype: compute type, float32 or bfloat16; parameters are float32 either way.
        preprocessing: the form in which it wants its images; kept with the weights.
        rngs: initialisation, as in the published MAE: Xavier-uniform kernels, zero biases,
            CLS normal with deviation 0.02.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        preprocessing: Preprocessing | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.preprocessing = preprocessing or Preprocessing()
        self.dtype = jnp.dtype(dtype)
        self.embed = nnx.Linear(
            3 * config.patch_size**2,
            config.dim,
            kernel_init=nnx.initializers.xavier_uniform(),
            dtype=dtype,
            rngs=rngs,
        )
        self.cls = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.dim,)))
        self.positions = Position(jnp.asarray(sincos_positions(config.dim, config.grid)))
        self.blocks = nnx.List(
            Block(
                config.dim,
                config.heads,
                config.mlp_dim,
                config.layer_norm_eps,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(config.depth)
        )
        self.norm = nnx.LayerNorm(
            config.dim,
            epsilon=config.layer_norm_eps,
            use_fast_variance=False,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        keep: Int[Array, "batch kept"] | None,
        valid: Bool[Array, "batch kept"] | None = None,
    ) -> Float[Array, "batch tokens dim"]:
        """Encodes the visible patches.

        Args:
            images: [B, H, W, 3] float32, normalised, H = W = `config.image_size`.
            keep: indices of the visible patches [B, K], or None for all of them.
            valid: which of `keep` are meant [B, K]; the others are padding, and no token attends
                to them. None if all are.

        Returns:
            Tokens [B, 1 + K, D] after the final LayerNorm, CLS first; those of padding are of no
            use.

        Raises:
            ValueError: the images are not of the encoder's size.
        """
        side = self.config.image_size
        if images.shape[1:] != (side, side, 3):
            raise ValueError(
                f"images must have the encoder's shape [batch, {side}, {side}, 3], "
                f"got {list(images.shape)}"
            )
        patches = patchify(images.astype(self.dtype), self.config.patch_size)
        positions = self.positions[...].astype(self.dtype)
        if keep is None:
            x = self.embed(patches) + positions[1:]
        else:
            # Only the kept patches are embedded: what is masked costs nothing.
            patches = jnp.take_along_axis(patches, keep[:, :, None], axis=1)
            x = self.embed(patches) + positions[1 + keep]
        cls = self.cls[...].astype(self.dtype) + positions[0]
        x = jnp.concatenate([jnp.broadcast_to(cls, (len(x), 1, self.config.dim)), x], axis=1)
        if valid is not None:
            valid = jnp.pad(valid, [(0, 0), (1, 0)], constant_values=True)  # CLS
        for block in self.blocks:
            x = block(x, valid)
        return self.norm(x)
