"""Weights in a smaller type than float32, which a program widens before it multiplies.

Only what multiplies activations is small: the kernels of linear layers and convolutions. Biases,
normalisations, positions and the CLS token, a percent of an encoder, stay float32, and so do all
activations. 8 bits are symmetric with a scale for every output channel, as in Jacob et al.,
Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
(arXiv 1712.05877), without their quantised activations.
"""

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int8

WEIGHTS = ("float32", "bfloat16", "int8")
MOST = 127  # of an 8-bit number without -128, so that the range is symmetric

Module = TypeVar("Module", bound=nnx.Module)


def quantized(
    kernel: Float[np.ndarray, "*axes outputs"],
) -> tuple[Int8[np.ndarray, "*axes outputs"], Float[np.ndarray, "*scales outputs"]]:
    """8-bit numbers q and float32 scales s: the kernel is about q · s.

    The largest weight of every output becomes 127 or -127, so no weight moves by more than half a
    scale. Blocks that are stacked along a first axis have scales of their own.

    Args:
        kernel: [inputs, outputs] or [height, width, inputs, outputs], with an axis more of a stack.

    Returns:
        q as the kernel, s with ones in place of the axes that are summed over.
    """
    stacked = kernel.ndim % 2
    summed = tuple(range(stacked, kernel.ndim - 1))
    largest = np.abs(kernel).max(axis=summed, keepdims=True)
    scales = np.where(largest > 0, largest / MOST, 1).astype(np.float32)
    return np.rint(kernel / scales).astype(np.int8), scales


def widened(kernel: Float[np.ndarray, "*axes outputs"], weights: str) -> Float[Array, "..."]:
    """A kernel in float32, after it was rounded to what is stored.

    Inside a program that is traced, the small numbers are its constants and widening is its work.

    Args:
        kernel: as of `quantized`, float32.
        weights: float32, bfloat16 or int8.
    """
    if weights == "bfloat16":
        return jnp.asarray(kernel.astype(jnp.bfloat16)).astype(jnp.float32)
    if weights == "int8":
        small, scales = quantized(kernel)
        return jnp.asarray(small).astype(jnp.float32) * jnp.asarray(scales)
    return jnp.asarray(kernel)


def with_widened(module: Module, weights: str) -> Module:
    """A copy of a module that computes with `widened` kernels.

    Made inside a program, all its variables belong to that, as those of a scanned module must.
    """
    graphdef, state = nnx.split(module)

    def each(path: tuple, variable: Any) -> Any:
        value = np.asarray(variable[...])
        kernel = path[-1] == "kernel"
        return variable.replace(widened(value, weights) if kernel else jnp.asarray(value))

    return nnx.merge(graphdef, nnx.map_state(each, state))
