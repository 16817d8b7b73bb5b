"""Custom gradients against finite differences of formulas in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jist.models.primitives import gelu, layer_norm, linear

erf = np.vectorize(math.erf)


def gradients(formula, weights, arguments, step=1e-5):
    """The gradients of sum(weights * formula(*arguments)), by central differences."""
    for argument in arguments:
        gradient = np.empty_like(argument)
        for index in np.ndindex(argument.shape):
            value, ends = argument[index], []
            for end in (value + step, value - step):
                argument[index] = end
                ends.append(np.sum(weights * formula(*arguments)))
            argument[index] = value
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        yield gradient


def normalised(x, scale, bias):
    return scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) + bias


@pytest.mark.parametrize("outputs", [3, 9])  # either factor of a weight gradient may be transposed
def test_linear(outputs):
    layer = nnx.Linear(6, outputs, rngs=nnx.Rngs(0))
    check(
        linear,
        layer,
        lambda x, bias, kernel: x @ kernel + bias,
        {"kernel": (6, outputs), "bias": (outputs,)},
    )


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 40), (40, 6), (200, 130)])
def test_linear_in_bfloat16_rounds_factors_and_results_only(inputs, outputs):
    layer = nnx.Linear(inputs, outputs, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.bias[...] = jax.random.normal(jax.random.key(2), (outputs,))
    x, dy = (
        jax.random.normal(jax.random.key(key), (3, 11, width), jnp.bfloat16)
        for key, width in enumerate((inputs, outputs))
    )
    graphdef, params = nnx.split(layer)
    y, back = jax.vjp(lambda params, x: linear(nnx.merge(graphdef, params), x), params, x)
    of_layer, dx = back(dy)
    kernel = np.asarray(layer.kernel[...].astype(jnp.bfloat16), np.float64)
    wide_x, wide_dy = (np.asarray(some, np.float64) for some in (x, dy))
    for got, expected, dtype in (
        (y, wide_x @ kernel + np.asarray(layer.bias[...], np.float64), jnp.bfloat16),
        (dx, wide_dy @ kernel.T, jnp.bfloat16),
        (of_layer["kernel"][...], np.einsum("abi,abo->io", wide_x, wide_dy), jnp.float32),
        (of_layer["bias"][...], wide_dy.sum((0, 1)), jnp.float32),
    ):
        assert got.dtype == dtype
        error = np.asarray(got, np.float64) - expected
        assert np.linalg.norm(error) < 2**-8 * np.linalg.norm(expected)


@pytest.mark.parametrize("mean", [0, 50])  # a large mean costs a one-pass variance its digits
def test_layer_norm(mean):
    layer = nnx.LayerNorm(6, use_fast_variance=False, rngs=nnx.Rngs(0))
    check(
        layer_norm,
        layer,
        lambda x, bias, scale: normalised(x, scale, bias),
        {"scale": (6,), "bias": (6,)},
        mean,
    )


def check(function, layer, formula, shapes, mean=0.0):
    """Values and all gradients, on two axes of rows; both as flax's layer and as the formula."""
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        setattr(layer, name, nnx.Param(jnp.asarray(generator.normal(size=shape), jnp.float32)))
    x = (mean + generator.normal(size=(2, 4, 6))).astype(np.float32)
    names = sorted(shapes)  # as flax orders them
    wide = [np.asarray(a, np.float64) for a in (x, *(getattr(layer, name)[...] for name in names))]
    got = function(layer, jnp.asarray(x))
    np.testing.assert_allclose(got, formula(*wide), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(got, layer(jnp.asarray(x)), rtol=1e-5, atol=2e-5)
    weights = generator.normal(size=got.shape).astype(np.float32)
    graphdef, params = nnx.split(layer)
    of_layer, of_x = jax.grad(
        lambda params, x: jnp.sum(weights * function(nnx.merge(graphdef, params), x)),
        argnums=(0, 1),
    )(params, jnp.asarray(x))
    all_of_them = (of_x, *(of_layer[name][...] for name in names))
    for mine, expected in zip(all_of_them, gradients(formula, weights, wide), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=5e-5)


def test_gelu():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    got = jax.grad(lambda x: jnp.sum(gelu(x)))(jnp.asarray(x))
    formula = lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2)))  # noqa: E731
    (expected,) = gradients(formula, 1.0, [x.astype(np.float64)])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_is_x_times_the_normal_distribution_function(dtype):
    x = jnp.linspace(-6, 6, 1001).astype(dtype)
    wide = np.asarray(x, np.float64)
    got = gelu(x)
    assert got.dtype == dtype
    # A last bit of bfloat16 is a 256th; float32 loses digits of Φ far to the left.
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 4e-3, "atol": 1e-5}
    )
    np.testing.assert_allclose(
        np.asarray(got, np.float64), wide * 0.5 * (1 + erf(wide / math.sqrt(2))), **tolerance
    )


def test_in_bfloat16_gradients_are_near_those_of_float32_and_of_the_parameters_type():
    def gradient(dtype):
        first = nnx.LayerNorm(16, use_fast_variance=False, dtype=dtype, rngs=nnx.Rngs(0))
        second = nnx.Linear(16, 8, dtype=dtype, rngs=nnx.Rngs(0))
        x = jax.random.normal(jax.random.key(1), (4, 8, 16))
        loss = lambda layers, x: jnp.sum(gelu(linear(layers[1], layer_norm(layers[0], x))) ** 2)  # noqa: E731
        layers = nnx.List([first, second])
        gradient = nnx.jit(nnx.grad(loss, argnums=(0, 1)))
        return jax.tree.leaves(gradient(layers, x))

    for rounded, exact in zip(gradient(jnp.bfloat16), gradient(jnp.float32), strict=True):
        assert rounded.dtype == exact.dtype == jnp.float32
        rounded, exact = np.asarray(rounded), np.asarray(exact)
        assert np.linalg.norm(rounded - exact) < 0.03 * np.linalg.norm(exact)
