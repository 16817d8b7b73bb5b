"""Images -> CLS vectors, whatever the encoder."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jist.models import Encoder, MAEEncoder
from jist.placement import split_batch

# A part of a batch has at least so many tokens on a CPU. XLA's matrix products are fastest there
# with 250 to 800 rows, and what lies between them stays in the cache.
CPU_TOKENS = 350


def cls_vectors(
    encoder: Encoder,
    images: UInt8[Array, "batch side side 3"],
    keep: Int[Array, "batch kept"],
    valid: Bool[Array, "batch kept"] | None = None,
) -> Float[Array, "batch dim"]:
    """The CLS vectors [B, D] of some images; traceable.

    Args:
        encoder: the frozen encoder.
        images: [B, S, S, 3] uint8.
        keep: indices of the visible patches [B, K]; all that a ResNet-50 has is patch 0.
        valid: which of `keep` are meant, as `MAEEncoder` takes it; None if all are.
    """
    if not isinstance(encoder, MAEEncoder):
        return encoder(encoder.preprocessing.normalize(images)).astype(jnp.float32)

    def encode(rows: tuple[Array, Array, Array | None]) -> Array:
        images, keep, valid = rows
        cls = encoder(encoder.preprocessing.normalize(images), keep, valid, wanted=1)
        return cls[:, 0].astype(jnp.float32)

    rows = (images, keep, valid)
    if jax.default_backend() != "cpu":
        return encode(rows)
    part = _images_at_a_time(len(images), 1 + keep.shape[1])
    # Strided, so that a part takes as many images from each device over which the batch is split.
    parts = jax.tree.map(lambda x: x.reshape(part, -1, *x.shape[1:]).swapaxes(0, 1), rows)
    return jax.lax.map(encode, parts).swapaxes(0, 1).reshape(len(images), -1)


def _images_at_a_time(batch: int, tokens: int) -> int:
    devices = split_batch(batch).num_devices
    own = batch // devices
    divisors = (count for count in range(1, own) if own % count == 0)
    return devices * next((count for count in divisors if count * tokens >= CPU_TOKENS), own)
