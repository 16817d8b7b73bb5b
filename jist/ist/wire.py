"""As what numbers travel between devices: their own type, a narrower one, or codes of 8 bits.

Moments of an optimiser need little precision and much range: a second moment that is rounded to
zero divides by nothing. So a code holds a sign and the logarithm of the magnitude, in steps of a
fifth of an octave below the largest number of its message, which travels beside it (after the
block-wise codes of Dettmers, Lewis, Shleifer, Zettlemoyer: 8-bit Optimizers via Block-wise
Quantization, ICLR 2022). What is not zero never becomes zero.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

LOG8 = "log8"
Wire = DTypeLike | None
_LEVELS = 127  # of a magnitude; 0 stands for zero
_PER_OCTAVE = 5  # levels: ranges over 2^25, rounds by at most 7 %


def send(array: Array, wire: Wire, collective: Callable[[Array], Array], lead: int) -> Array:
    """A collective that only moves numbers.

    Args:
        array: what to move.
        wire: type in which floats travel, or "log8"; their own by default.
        collective: moves them, along the first `lead` axes only.
        lead: how many axes number the messages, each of which has a scale of its own in "log8".
    """
    if wire is None or not jnp.issubdtype(array.dtype, jnp.floating):
        return collective(array)
    if wire == LOG8:
        codes, scale = encode(array, lead)
        return decode(collective(codes), collective(scale)).astype(array.dtype)
    narrow = array.astype(wire)
    # As integers, because XLA's CPU backend widens bfloat16 to float32 around a collective.
    bits = jax.lax.bitcast_convert_type(narrow, f"uint{8 * narrow.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(collective(bits), narrow.dtype).astype(array.dtype)


def encode(
    array: Float[Array, "*shape"], lead: int
) -> tuple[UInt8[Array, "*shape"], Float[Array, "*scales"]]:
    """Codes of 8 bits, and the largest magnitude of every message: axes after `lead` are 1."""
    magnitude = jnp.abs(array.astype(jnp.float32))
    scale = jnp.max(magnitude, axis=tuple(range(lead, array.ndim)), keepdims=True)
    below = jnp.log2(magnitude / jnp.where(scale > 0, scale, 1))
    level = jnp.clip(jnp.round(_LEVELS + _PER_OCTAVE * below), 1, _LEVELS)
    code = jnp.where(magnitude == 0, 0, level + (_LEVELS + 1) * (array < 0))
    return code.astype(jnp.uint8), scale


def decode(codes: UInt8[Array, "*shape"], scale: Float[Array, "*scales"]) -> Float[Array, "*shape"]:
    """The numbers that `encode` was given, rounded to their levels."""
    level = (codes & _LEVELS).astype(jnp.float32)
    magnitude = scale * jnp.exp2((level - _LEVELS) / _PER_OCTAVE)
    return jnp.where(level == 0, 0, jnp.where(codes > _LEVELS, -magnitude, magnitude))


def narrows(wire: Wire, dtype: DTypeLike) -> bool:
    """Whether numbers of a type are rounded on the way."""
    return wire_bytes((1,), dtype, wire, 0) < jnp.dtype(dtype).itemsize


def wire_bytes(shape: Sequence[int], dtype: DTypeLike, wire: Wire, messages: int) -> int:
    """Bytes of an array that travels in a number of messages."""
    dtype = jnp.dtype(dtype)
    numbers = math.prod(shape)
    if wire is None or not jnp.issubdtype(dtype, jnp.floating):
        return numbers * dtype.itemsize
    return numbers + 4 * messages if wire == LOG8 else numbers * jnp.dtype(wire).itemsize
