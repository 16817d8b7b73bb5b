"""VGG-12: convolutions that every worker has, and a dense part that is dealt.

Yuan et al. (VLDB 2022), §3.2, train the fully connected part of a "VGG12" on ImageNet so. They do
not list its convolutions. Here they are nine, in the five steps of Simonyan and Zisserman (arXiv
1409.1556), Table 1, each with a BatchNorm.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from jist.models.convolution import Convolution
from jist.models.mlp import MLP
from jist.models.resnet18 import batch_norm

# Channels of the convolutions before each pooling, in those of the first.
STEPS = ((1,), (2,), (4, 4), (8, 8), (8, 8, 8))


class VGG12(nnx.Module):
    """VGG-12 for square images.

    Args:
        image_size: side of the images in pixels, a multiple of 32.
        classes: number of classes C.
        hidden: widths of the dense part's hidden layers, `hidden1` and `hidden2`.
        width: channels of the first convolution.
        steps: how many times as many the convolutions before each halving of the image have.
        rngs: initialisation (He normal; the dense part LeCun normal).

    Raises:
        ValueError: the poolings do not divide `image_size`.
    """

    def __init__(
        self,
        image_size: int,
        classes: int,
        *,
        hidden: tuple[int, ...] = (4096, 4096),
        width: int = 64,
        steps: tuple[tuple[int, ...], ...] = STEPS,
        rngs: nnx.Rngs,
    ):
        halved = 2 ** len(steps)
        if image_size < 1 or image_size % halved:
            raise ValueError(f"image_size must be a multiple of {halved}, got {image_size}")
        inputs, convolutions, norms = 3, [], []
        for channels in (width * times for step in steps for times in step):
            convolutions.append(Convolution(inputs, channels, 3, rngs=rngs))
            norms.append(batch_norm(channels, rngs=rngs))
            inputs = channels
        self.convolutions, self.norms = nnx.List(convolutions), nnx.List(norms)
        self.steps = steps
        features = inputs * (image_size // halved) ** 2
        self.dense = MLP((features, *hidden, classes), rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """The logits [B, C] of normalised images [B, S, S, 3]."""
        x = images
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for step in self.steps:
            for _ in step:
                convolution, norm = next(layers)
                x = jax.nn.relu(norm(convolution(x)))
            x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return self.dense(x.reshape(x.shape[0], -1))  # a number that may be open, in an export
