"""A network of whole images, from bytes: augmentation and normalisation belong to it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from jist.models.classifier import Views
from jist.models.preprocessing import Preprocessing


class ImageClassifier(nnx.Module):
    """From the bytes of an image to its class, by a network such as `ResNet18` or `VGG12`.

    Args:
        network: takes normalised images [B, S, S, 3] and gives logits [B, C]; not copied.
        preprocessing: how images are normalised.
        views: what happens to an image in training mode, as of `Classifier`, but no patches are
            asked for; nothing by default.
        rngs: the stream "views".
    """

    def __init__(
        self,
        network: nnx.Module,
        *,
        preprocessing: Preprocessing | None = None,
        views: Views | None = None,
        rngs: nnx.Rngs,
    ):
        self.network = network
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        self.views = views
        self.stream = None if views is None else rngs.views.fork()
        self.deterministic = False  # `model.train()` and `model.eval()` set it

    def __call__(self, images: UInt8[Array, "batch side side 3"]) -> Float[Array, "batch classes"]:
        """The logits [B, C] of images [B, S, S, 3]."""
        pixels = images.astype(jnp.float32)
        if self.views is not None and self.stream is not None and not self.deterministic:
            keys = jax.random.split(self.stream(), len(images))
            none = jnp.zeros((len(images), 0), jnp.int32)
            pixels, _ = jax.vmap(self.views)(keys, images, none)
        return self.network(self.preprocessing.normalize(pixels))  # type: ignore[operator]
