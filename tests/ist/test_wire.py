"""Codes of 8 bits: how exactly numbers come out, and that small ones do not become zero."""

import jax.numpy as jnp
import numpy as np
import pytest

from jist.ist import wire


def test_codes_keep_sign_magnitude_and_zeros():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 50, 4)) * 10.0 ** generator.uniform(-7, 0, (3, 50, 4))
    x[0, 0], x[2] = 0, x[2] * 1e-20  # a message of its own scale
    codes, scale = wire.encode(jnp.asarray(x, jnp.float32), lead=1)
    assert (codes.dtype, scale.shape) == (jnp.uint8, (3, 1, 1))
    found = np.asarray(wire.decode(codes, scale))
    largest = np.abs(x).max(axis=(1, 2), keepdims=True)
    held = np.abs(x) > largest * 2.0**-25
    np.testing.assert_allclose(found[held], x[held], rtol=2**0.1 - 1 + 1e-3)
    np.testing.assert_array_equal(np.sign(found), np.sign(x))
    # What is smaller still takes the smallest magnitude.
    assert (np.abs(found) <= np.maximum(1.08 * np.abs(x), 2.0**-24.9 * largest)).all()
    # The largest number of a message is exact, and codes of what was decoded are the same.
    np.testing.assert_allclose(np.abs(found).max(axis=(1, 2), keepdims=True), scale, rtol=1e-6)
    np.testing.assert_array_equal(wire.encode(jnp.asarray(found), lead=1)[0], codes)


def test_a_message_of_zeros_and_one_that_is_not_finite():
    x = jnp.asarray([[0.0, 0.0], [1.0, jnp.inf]], jnp.float32)
    found = np.asarray(wire.decode(*wire.encode(x, lead=1)))
    np.testing.assert_array_equal(found[0], 0)
    assert not np.isfinite(found[1]).all()


@pytest.mark.parametrize("way", [None, "bfloat16", wire.LOG8])
def test_whole_numbers_travel_as_they_are(way):
    x = jnp.asarray([[1, 2**24 + 1], [-7, 0]], jnp.int32)
    np.testing.assert_array_equal(wire.send(x, way, lambda sent: sent[::-1], lead=1), x[::-1])
    assert wire.wire_bytes(x.shape, x.dtype, way, messages=2) == 16
