"""Images -> CLS vectors, whatever the encoder."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from jist.models import Encoder, MAEEncoder


def cls_vectors(
    encoder: Encoder,
    images: UInt8[Array, "batch side side 3"],
    keep: Int[Array, "batch kept"],
) -> Float[Array, "batch dim"]:
    """The CLS vectors [B, D] of some images; traceable.

    Args:
        encoder: the frozen encoder.
        images: [B, S, S, 3] uint8.
        keep: indices of the visible patches [B, K]; all that a ResNet-50 has is patch 0.
    """
    pixels = encoder.preprocessing.normalize(images)
    if isinstance(encoder, MAEEncoder):
        cls = encoder(pixels, keep, wanted=1)[:, 0]
    else:
        cls = encoder(pixels)
    return cls.astype(jnp.float32)
