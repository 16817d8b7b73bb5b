"""The encoder of a masked autoencoder: a Vision Transformer that sees only the visible patches.

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377). Masked patches are
dropped before the first block, so the cost falls with their number.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jist.models.positions import Position, sincos_positions
from jist.models.preprocessing import Preprocessing
from jist.models.primitives import layer_norm, linear
from jist.models.stack import Stack
from jist.models.transformer import blocks, new_layer_norm


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
        channels: channels C of an image: 3 of colours, as many as a sensor has bands.

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
    channels: int = 3

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

    def as_json(self) -> dict[str, Any]:
        """The shape as `config.json` has it: of colour images, as before there were others."""
        shape = dataclasses.asdict(self)
        if self.channels == 3:
            del shape["channels"]
        return shape

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


def unpatchify(
    patches: Float[Array, "batch patches pixels"], patch_size: int
) -> Float[Array, "batch side side channels"]:
    """Puts patches back into images: the inverse of `patchify`."""
    batch, count, pixels = patches.shape
    grid = round(count**0.5)
    x = patches.reshape(batch, grid, grid, patch_size, patch_size, pixels // patch_size**2)
    return x.swapaxes(2, 3).reshape(batch, grid * patch_size, grid * patch_size, -1)


class MAEEncoder(nnx.Module):
    """The encoder of a masked autoencoder.

    Args:
        config: its shape.
        dtype: compute type, float32 or bfloat16; parameters are float32 either way.
        preprocessing: resizing and normalisation of its images; saved with the weights.
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
        self.preprocessing = preprocessing or Preprocessing.of(config.channels)
        if len(self.preprocessing.mean) != config.channels:
            raise ValueError(
                f"preprocessing must have a mean for each of {config.channels} channels, got "
                f"{len(self.preprocessing.mean)}"
            )
        self.dtype = jnp.dtype(dtype)
        self.embed = nnx.Linear(
            config.channels * config.patch_size**2,
            config.dim,
            kernel_init=nnx.initializers.xavier_uniform(),
            dtype=dtype,
            rngs=rngs,
        )
        self.cls = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.dim,)))
        self.positions = Position(jax.device_put(sincos_positions(config.dim, config.grid)))
        self.blocks: Any = nnx.List(  # of `Block`; `name_neurons` may put a `Stack` in its place
            blocks(
                config.dim,
                config.depth,
                config.heads,
                config.mlp_dim,
                config.layer_norm_eps,
                dtype=dtype,
                rngs=rngs,
            )
        )
        self.norm = new_layer_norm(config.dim, config.layer_norm_eps, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        keep: Int[Array, "batch kept"] | None,
        valid: Bool[Array, "batch kept"] | None = None,
        wanted: int | None = None,
    ) -> Float[Array, "batch tokens dim"]:
        """Encodes the visible patches.

        Args:
            images: [B, H, W, C] float32, normalised, H = W = `config.image_size`.
            keep: indices of the visible patches [B, K], or None for all of them.
            valid: which of `keep` are no padding [B, K]; no token attends to padding. None if all
                are.
            wanted: number of tokens to return; with 1, the last block is computed for CLS alone.
                None for all.

        Returns:
            Tokens [B, 1 + K, D] after the final LayerNorm, CLS first, or the first `wanted` of
            them; those of padding are meaningless.

        Raises:
            ValueError: the images are not of the encoder's size.
        """
        side, channels = self.config.image_size, self.config.channels
        if images.shape[1:] != (side, side, channels):
            raise ValueError(
                f"images must have the encoder's shape [batch, {side}, {side}, {channels}], "
                f"got {list(images.shape)}"
            )
        patches = patchify(images.astype(self.dtype), self.config.patch_size)
        positions = self.positions[...].astype(self.dtype)
        if keep is None:
            x = linear(self.embed, patches) + positions[1:]
        else:
            # Only the kept patches are embedded, so masked ones cost nothing.
            patches = jnp.take_along_axis(patches, keep[:, :, None], axis=1)
            x = linear(self.embed, patches) + positions[1 + keep]
        cls = self.cls[...].astype(self.dtype) + positions[0]
        x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, self.config.dim)), x], axis=1)
        if valid is not None:
            valid = jnp.pad(valid, [(0, 0), (1, 0)], constant_values=True)  # CLS
        if isinstance(self.blocks, Stack):  # any block may be a worker's last
            return layer_norm(self.norm, self.blocks(x, valid)[:, :wanted])
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, valid)
        x = last(x, valid, wanted)
        return layer_norm(self.norm, x)
