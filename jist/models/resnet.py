"""ResNet-50 v1.5 as a frozen feature extractor, the comparison encoder of the paper.

He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385), Table 1. Version 1.5
halves the resolution in a bottleneck's 3×3 convolution, not in the 1×1 before it. Kariotakis et al.
(CPAL 2024), Fig. 3, remove its last layer and keep the 2048 averages.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jist.models.preprocessing import Preprocessing

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4
FEATURES = 2048
EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class WholeImage:
    """Input and output sizes of ResNet-50, in the terms of `ViTConfig`: an image is one patch.

    Attributes:
        image_size: side of the images that it was trained on, in pixels.
        patch_size: side of a patch, which is all of the image; it cannot be removed.
        dim: numbers in a feature vector.
    """

    image_size: int = 224
    patch_size: int = 224
    dim: int = FEATURES

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2


def _convolution(
    inputs: int, outputs: int, size: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Conv:
    # Explicit padding: "SAME" pads a stride of 2 on one side only, unlike the published weights.
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=((size // 2, size // 2),) * 2,
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        dtype=dtype,
        rngs=rngs,
    )


class FrozenBatchNorm(nnx.BatchNorm):
    """Batch norm that uses the stored statistics even in a model that is being trained."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        super().__init__(width, epsilon=EPSILON, dtype=dtype, rngs=rngs)

    def __call__(  # type: ignore[override]  # the base class lets the caller choose statistics
        self, x: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch h w c"]:
        """Normalises x [B, H, W, C] channel by channel."""
        return super().__call__(x, use_running_average=True)


class Bottleneck(nnx.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        convolution = functools.partial(_convolution, dtype=dtype, rngs=rngs)
        norm = functools.partial(FrozenBatchNorm, dtype=dtype, rngs=rngs)
        outputs = EXPANSION * width
        self.conv1 = convolution(inputs, width, 1, 1)
        self.norm1 = norm(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.norm2 = norm(width)
        self.conv3 = convolution(width, outputs, 1, 1)
        self.norm3 = norm(outputs)
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.shortcut_conv = convolution(inputs, outputs, 1, stride)
            self.shortcut_norm = norm(outputs)

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        """Passes x [B, H, W, C] through the block, at half the resolution if its stride is 2."""
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if self.projects else x
        x = jax.nn.relu(self.norm1(self.conv1(x)))
        x = jax.nn.relu(self.norm2(self.conv2(x)))
        return jax.nn.relu(self.norm3(self.conv3(x)) + shortcut)


class ResNet50(nnx.Module):
    """ResNet-50 v1.5 without its classifier; batch norm always uses the stored statistics.

    Args:
        dtype: compute type; parameters are float32 either way.
        preprocessing: resizing and normalisation of its images; ImageNet's, bilinear, by default.
        rngs: initialisation (He normal).
    """

    def __init__(
        self,
        *,
        dtype: DTypeLike = jnp.float32,
        preprocessing: Preprocessing | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = WholeImage()
        self.dtype = jnp.dtype(dtype)
        self.preprocessing = preprocessing or Preprocessing(interpolation="bilinear")
        self.conv = _convolution(3, 64, 7, 2, dtype=dtype, rngs=rngs)
        self.norm = FrozenBatchNorm(64, dtype=dtype, rngs=rngs)
        blocks, inputs = [], 64
        for stage, (width, depth) in enumerate(STAGES):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Bottleneck(inputs, width, stride, dtype=dtype, rngs=rngs))
                inputs = EXPANSION * width
        self.blocks = nnx.List(blocks)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch features"]:
        """Features [B, 2048] after average pooling; no gradient flows through them.

        Args:
            images: [B, H, W, 3] float32, normalised, of any size; 224 × 224 is what it was
                trained on.
        """
        x = jax.nn.relu(self.norm(self.conv(images.astype(self.dtype))))
        x = nnx.max_pool(
            x,
            (3, 3),
            strides=(2, 2),
            padding=((1, 1), (1, 1)),  # type: ignore[arg-type]  # annotated as str, takes pairs too
        )
        for block in self.blocks:
            x = block(x)
        return jax.lax.stop_gradient(jnp.mean(x.astype(jnp.float32), axis=(1, 2)))
