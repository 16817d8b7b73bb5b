"""ResNet-18, to be trained from scratch by parts.

He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385), Table 1. For small
images the stem is a 3×3 convolution without pooling, as in their §4.2.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jist.models.convolution import Convolution
from jist.models.stack import Stack

NEURONS = ("blocks", "channels")
STAGES = 4


def batch_norm(channels: int, neurons: str | None = None, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """A BatchNorm whose channels may have a name; its running averages take it as well."""
    named = {"neurons": (neurons,)}
    return nnx.BatchNorm(channels, scale_metadata=named, bias_metadata=named, rngs=rngs)


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions beside a shortcut, and a ReLU.

    Its input is not negative, as behind a ReLU; so the block is the identity where it is zero
    beside its shortcut.

    Args:
        inputs: channels of the input.
        outputs: channels of the output, and between the convolutions.
        stride: of the first convolution.
        channels: the name of the channels between the convolutions, if they are dealt. BatchNorm
            after the second takes out what its sum lacks in scale.
        rngs: initialisation (He normal).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int = 1,
        channels: str | None = None,
        rngs: nnx.Rngs,
    ):
        new = functools.partial(Convolution, rngs=rngs)
        self.conv1 = new(inputs, outputs, 3, stride=stride, after=channels)
        self.norm1 = batch_norm(outputs, channels, rngs=rngs)
        self.conv2 = new(outputs, outputs, 3, before=channels)
        self.norm2 = batch_norm(outputs, rngs=rngs)
        self.projects = inputs != outputs or stride != 1
        if self.projects:
            self.shortcut_conv = new(inputs, outputs, 1, stride=stride)
            self.shortcut_norm = batch_norm(outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        """Passes x [B, H, W, C] through the block, at half the resolution if its stride is 2."""
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if self.projects else x
        x = jax.nn.relu(self.norm1(self.conv1(x)))
        return jax.nn.relu(self.norm2(self.conv2(x)) + shortcut)


class ResNet18(nnx.Module):
    """ResNet-18 with its classifier.

    Args:
        classes: number of classes C.
        neurons: what is dealt to workers, of `NEURONS`. "blocks": every block that keeps its
            input's shape, two in the first stage and one in each other; a worker without it goes
            round it. "channels": those between the two convolutions of each block in the last
            stage, which has three quarters of all parameters. The rest is on every worker.
        small: whether images are small (32 pixels): the stem is then a 3×3 convolution.
        width: channels of the first stage.
        rngs: initialisation (He normal; the classifier LeCun normal).

    Raises:
        ValueError: an unknown kind of neurons.
    """

    def __init__(
        self,
        classes: int,
        *,
        neurons: Sequence[str] = NEURONS,
        small: bool = True,
        width: int = 64,
        rngs: nnx.Rngs,
    ):
        if not set(neurons) <= set(NEURONS):
            raise ValueError(f"neurons must be some of {NEURONS}, got {tuple(neurons)}")
        self.small = small
        size, stride = (3, 1) if small else (7, 2)
        self.conv = Convolution(3, width, size, stride=stride, rngs=rngs)
        self.norm = batch_norm(width, rngs=rngs)
        parts: list[nnx.Module] = []
        inputs = width
        for stage in range(1, STAGES + 1):
            outputs, name = width * 2 ** (stage - 1), f"stage{stage}"
            dealt = stage == STAGES and "channels" in neurons
            first, second = (f"{name}.channels{i}" if dealt else None for i in (1, 2))
            again = functools.partial(BasicBlock, outputs, outputs, rngs=rngs)
            if stage == 1:
                alike = [again(), again()]
            else:
                new = BasicBlock(inputs, outputs, stride=2, channels=first, rngs=rngs)
                parts.append(new)
                alike = [again(channels=second)]
            parts += [Stack(alike, f"{name}.blocks?")] if "blocks" in neurons else alike
            inputs = outputs
        self.parts = nnx.List(parts)
        self.head = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """The logits [B, C] of normalised images [B, H, W, 3] of any size."""
        x = jax.nn.relu(self.norm(self.conv(images)))
        if not self.small:
            x = nnx.max_pool(
                x,
                window_shape=(3, 3),
                strides=(2, 2),
                padding=((1, 1), (1, 1)),  # type: ignore[arg-type]  # annotated as str, takes pairs
            )
        for part in self.parts:
            x = part(x)
        return self.head(jnp.mean(x, axis=(1, 2)))
