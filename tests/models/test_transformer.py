"""Code optimised for speed against formulas in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jist.models.transformer import Attention, Block


@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_softmax_of_scaled_products(padded):
    attention = Attention(8, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (3, 5, 8))
    valid = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1]], bool)
    got = attention(x, valid if padded else None)
    kernel, bias = (
        np.asarray(v[...], np.float64) for v in (attention.qkv.kernel, attention.qkv.bias)
    )
    qkv = (np.asarray(x, np.float64) @ kernel + bias).reshape(3, 5, 3, 2, 4)
    expected = np.empty((3, 5, 8))
    for image in range(3):
        keys = np.flatnonzero(valid[image]) if padded else np.arange(5)
        for head in range(2):
            q, k, v = (qkv[image, :, part, head] for part in range(3))
            weights = np.exp(q @ k[keys].T / math.sqrt(4))
            weights /= weights.sum(axis=1, keepdims=True)
            expected[image, :, 4 * head : 4 * head + 4] = weights @ v[keys]
    out = np.asarray(attention.out.kernel[...], np.float64)
    np.testing.assert_allclose(got, expected @ out + np.asarray(attention.out.bias[...]), atol=1e-5)


@pytest.mark.parametrize("wanted", [None, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_other_devices_attend_as_a_cpu_does(padded, wanted, monkeypatch):
    attention = Attention(8, 2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (3, 5, 8))
    valid = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1]], bool)
    cotangent = jax.random.normal(jax.random.key(1), (3, wanted or 5, 8))
    fused, calls = jax.nn.dot_product_attention, []

    def counted(*given, **options):
        calls.append(1)
        return fused(*given, **options)

    def outputs_and_gradients():
        graphdef, weights = nnx.split(attention)

        def outputs(weights, x):
            return nnx.merge(graphdef, weights)(x, valid if padded else None, wanted)

        given, back = jax.vjp(outputs, weights, x)
        return given, back(cotangent)

    # A new function each time, because what is compiled depends on the backend.
    compiled = lambda: jax.jit(lambda: outputs_and_gradients())()  # noqa: E731
    monkeypatch.setattr(jax.nn, "dot_product_attention", counted)
    expected = compiled()
    assert not calls
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = compiled()
    assert calls
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize("padded", [False, True])
def test_a_block_computes_the_tokens_that_are_wanted(padded):
    block = Block(8, 2, 16, 1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    valid = jnp.asarray([[1, 1, 1, 0, 1], [1, 0, 1, 1, 0]], bool) if padded else None
    tokens = nnx.jit(lambda block, x, wanted: block(x, valid, wanted), static_argnums=2)
    all_of_them = tokens(block, x, None)
    for wanted in (1, 3, 5):
        some = tokens(block, x, wanted)
        assert some.shape == (2, wanted, 8)
        np.testing.assert_allclose(some, all_of_them[:, :wanted], atol=1e-6)
