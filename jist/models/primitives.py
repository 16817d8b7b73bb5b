"""Linear maps, LayerNorm and the exact GELU with gradients of their own.

The gradients are the usual ones, in an order of operations that XLA:CPU executes well. By default
XLA copies both factors of every weight gradient, because they have two axes of rows; and it
recomputes the gradient of a residual stream, from the last block on, for every operation that reads
it, because additions look cheap. So products here have one axis of rows, and a barrier marks the
gradients that are worth their memory. Only the inputs are kept for the backward pass.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

# Returns its argument, which is then computed once, however many operations read it.
once = jax.lax.optimization_barrier


def linear(
    layer: nnx.Linear, x: Float[Array, "*rows inputs"], outputs: slice = slice(None)
) -> Float[Array, "*rows outputs"]:
    """Computes `layer(x)` of a layer with a bias: x W + b, in the layer's compute type.

    Args:
        layer: its kernel W, bias b and compute type.
        x: any number of rows.
        outputs: which of the outputs are computed; all by default.
    """
    assert layer.bias is not None
    rows = x.reshape(-1, x.shape[-1]).astype(layer.dtype)
    y = _linear(rows, layer.kernel[:, outputs], layer.bias[outputs])
    return y.reshape(*x.shape[:-1], y.shape[-1])


@jax.custom_vjp
def _linear(
    x: Float[Array, "rows inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"],
) -> Float[Array, "rows outputs"]:
    """Computes x W + b in the type of x; kernel, bias and gradients usually have another type."""
    kernel = kernel.astype(x.dtype)
    if not _by_matrix_unit(x):
        return x @ kernel + bias.astype(x.dtype)
    return (_product(x, kernel) + bias).astype(x.dtype)


def _linear_gradients(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, Array]:
    x, kernel, bias = saved
    dy = once(dy)
    narrow = kernel.astype(x.dtype)
    if _by_matrix_unit(x):
        dx = _product(dy, _laid_out(narrow.T)).astype(x.dtype)
        dkernel = _product(_laid_out(x.T), dy)
    else:
        dx, dkernel = dy @ narrow.T, _weight_gradient(x, dy)
    return dx, dkernel.astype(kernel.dtype), jnp.sum(dy, 0, dtype=bias.dtype)


def _weight_gradient(x: Array, dy: Array) -> Array:
    # A transposed left factor is multiplied faster if it is narrow.
    if x.shape[1] > dy.shape[1]:
        return once(dy.T @ x).T
    return x.T @ dy


def _by_matrix_unit(x: Array) -> bool:
    """Whether products need the form in which XLA:CPU uses the matrix unit (AMX).

    That form is: bfloat16, both factors row-major, the product in float32. Others take ten times as
    long.
    """
    return x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu"


def _product(x: Array, y: Array) -> Array:
    return jnp.dot(x, y, preferred_element_type=jnp.float32)


def _laid_out(x: Array) -> Array:
    """A row-major copy; a transposed array would otherwise be read in place."""
    return with_layout_constraint(x, Layout((0, 1)))


_linear.defvjp(
    lambda x, kernel, bias: (_linear(x, kernel, bias), (x, kernel, bias)), _linear_gradients
)


def layer_norm(layer: nnx.LayerNorm, x: Float[Array, "*rows dim"]) -> Float[Array, "*rows dim"]:
    """Computes `layer(x)`, γ (x - μ) / sqrt(σ² + ε) + β, in float32; returns the layer's type.

    Ba et al., Layer Normalization (arXiv 1607.06450). The variance takes a second pass: the mean of
    squares less the squared mean loses digits where the mean is large.
    """
    assert layer.scale is not None
    assert layer.bias is not None
    return _layer_norm(x.astype(layer.dtype), layer.scale[...], layer.bias[...], layer.epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(
    x: Float[Array, "*rows dim"],
    scale: Float[Array, " dim"],
    bias: Float[Array, " dim"],
    epsilon: float,
) -> Float[Array, "*rows dim"]:
    centred, inverse = _standardise(x, epsilon)
    return (centred * inverse * scale + bias).astype(x.dtype)


def _standardise(x: Array, epsilon: float) -> tuple[Array, Array]:
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred, jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + epsilon)


def _layer_norm_and_saved(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, Array]]:
    return _layer_norm(x, scale, bias, epsilon), (x, scale)


def _layer_norm_gradients(
    epsilon: float, saved: tuple[Array, Array], dy: Array
) -> tuple[Array, Array, Array]:
    x, scale = saved
    dy = once(dy)
    centred, inverse = _standardise(x, epsilon)
    standard, wide = centred * inverse, dy.astype(jnp.float32)
    slope = wide * scale
    along = jnp.mean(slope * standard, -1, keepdims=True)
    dx = inverse * (slope - jnp.mean(slope, -1, keepdims=True) - standard * along)
    rows = tuple(range(x.ndim - 1))
    return once(dx.astype(x.dtype)), jnp.sum(wide * standard, rows), jnp.sum(wide, rows)


_layer_norm.defvjp(_layer_norm_and_saved, _layer_norm_gradients)


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, x Φ(x), by the error function, which costs less than `jax.nn.gelu`'s erfc.

    Hendrycks and Gimpel, Gaussian Error Linear Units (arXiv 1606.08415). In float32 for any
    type of x: the sum in Φ cancels where x is negative.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_distribution(wide)).astype(x.dtype)


def _normal_distribution(x: Array) -> Array:
    return 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)


def _gelu_gradient(x: Array, dy: Array) -> tuple[Array]:
    x = once(x)  # else the forward pass would keep its Φ(x), which is faster computed than read
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    slope = _normal_distribution(wide) + wide * density
    return ((dy.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)
