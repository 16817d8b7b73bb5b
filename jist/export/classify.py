"""From pixels, features or sparse rows to probabilities: what is exported, as one function."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jist.export.folded import Layer
from jist.export.weights import widened, with_widened
from jist.features.encoding import exact_products
from jist.models import Encoder, ImageClassifier, MAEEncoder, Preprocessing

OUTPUTS = ("softmax", "sigmoid", "clipped")


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A classifier that is trained.

    Attributes:
        layers: kernel and bias of the head's layers, with a ReLU between them; none of a network.
        temperature: by which logits are divided.
        encoder: that sees the images, in evaluation mode; None if the head takes features.
        pool: what the head sees of its tokens: cls, mean or both.
        weights: the type in which kernels are stored: float32, bfloat16 or int8.
        network: of convolutions, in evaluation mode, in the place of encoder and layers.
        image_size: side of the images that the network sees.
        sparse: whether it takes sparse rows, in the place of features.
        row_length: to which sparse rows are scaled, if they are.
        output: how logits z become probabilities, of `OUTPUTS`: softmax, of classes of which one
            is right; sigmoid, of labels, each by itself; or clipped, min(max(z, 0), 1) of labels.
        offset: what is added to z / temperature of labels.
    """

    layers: list[Layer]
    temperature: float = 1.0
    encoder: Encoder | None = None
    pool: str = "cls"
    weights: str = "float32"
    network: ImageClassifier | None = None
    image_size: int = 0
    sparse: bool = False
    row_length: float | None = None
    output: str = "softmax"
    offset: float = 0.0

    @property
    def side(self) -> int:
        """Side of the images in pixels; 0 if the head takes features."""
        return self.image_size if self.encoder is None else self.encoder.config.image_size

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images are resized and normalised; None if the head takes features."""
        seer = self.encoder or self.network
        return None if seer is None else seer.preprocessing

    @property
    def sees_patches(self) -> bool:
        """Whether it is told which patches of an image are visible."""
        return isinstance(self.encoder, MAEEncoder)

    def shapes(self, batch: Any, visible: Any) -> list[jax.ShapeDtypeStruct]:
        """Shapes and types of the arguments of `classify`.

        Args:
            batch: number of examples, or its name.
            visible: number of visible patches, or of entries of a sparse row, or its name.
        """
        if self.sparse:
            entries = (batch, visible)
            return [jax.ShapeDtypeStruct(entries, of) for of in (jnp.int32, jnp.float32)]
        if self.preprocessing is None:
            return [jax.ShapeDtypeStruct((batch, len(self.layers[0][0])), jnp.float32)]
        shape = (batch, self.side, self.side, len(self.preprocessing.mean))
        images = jax.ShapeDtypeStruct(shape, jnp.uint8)
        if not self.sees_patches:
            return [images]
        return [images, jax.ShapeDtypeStruct((batch, visible), jnp.int32)]


def classify(
    deployed: Deployed, x: Array, second: Array | None = None
) -> Float[Array, "batch classes"]:
    """Probabilities [B, C] of classes or labels; traceable, with any batch size, known or not.

    Images are encoded all at once: a batch of unknown size cannot be cut into parts.

    Args:
        deployed: the classifier.
        x: pixels u8 [B, S, S, C] of the encoder's size, features f32 [B, D], or features i32 [B, E]
            of a sparse row's entries.
        second: the visible patches i32 [B, K] of an encoder that sees patches, in rows from the
            upper left; -1 is padding, for images that show fewer than others. Of sparse rows the
            values f32 [B, E] of the entries; 0 is padding.
    """
    with exact_products(jnp.float32):
        if deployed.network is not None:
            x = with_widened(deployed.network, deployed.weights)(x)
        elif deployed.encoder is not None:
            x = _features(deployed, x, second)
        for number, (kernel, bias) in enumerate(deployed.layers):
            x = jax.nn.relu(x) if number else x
            wide = widened(kernel, deployed.weights)
            rows = deployed.sparse and number == 0
            x = _of_rows(x, second, wide, deployed.row_length) if rows else x @ wide
            x = x + jnp.asarray(bias)
        x = x / np.float32(deployed.temperature)
        if deployed.output == "softmax":
            return jax.nn.softmax(x)
        x = x + np.float32(deployed.offset)
        return jax.nn.sigmoid(x) if deployed.output == "sigmoid" else jnp.clip(x, 0, 1)


def _of_rows(
    indices: Array, values: Array | None, kernel: Array, length: float | None
) -> Float[Array, "batch width"]:
    """The first layer of sparse rows; the entries' rows of the kernel are held, [B, E, width]."""
    assert values is not None
    if length is not None:
        squares = jnp.sum(values**2, axis=1, keepdims=True)
        values = values * jnp.where(squares > 0, length * jax.lax.rsqrt(squares), 0)
    return jnp.einsum("be,bew->bw", values, kernel[indices])


def _features(deployed: Deployed, images: Array, keep: Array | None) -> Array:
    assert deployed.encoder is not None
    encoder = with_widened(deployed.encoder, deployed.weights)
    pixels = encoder.preprocessing.normalize(images)
    if not isinstance(encoder, MAEEncoder):
        return encoder(pixels).astype(jnp.float32)
    assert keep is not None
    valid = keep >= 0
    wanted = 1 if deployed.pool == "cls" else None
    tokens = encoder(pixels, jnp.maximum(keep, 0), valid, wanted=wanted).astype(jnp.float32)
    if deployed.pool == "cls":
        return tokens[:, 0]
    there = valid[:, :, None]
    total = jnp.sum(jnp.where(there, tokens[:, 1:], 0), axis=1)
    mean = total / jnp.maximum(jnp.sum(there, axis=1), 1)
    return mean if deployed.pool == "mean" else jnp.concatenate([tokens[:, 0], mean], axis=1)
