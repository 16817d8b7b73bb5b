"""The output layer of a model with many labels, for what computes some labels at a time."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def output_layer(model: Any, x: Any) -> tuple[Array, Array, Array]:
    """What the output layer is given for x, its kernel and its bias."""
    return model.hidden(x), *last_layer(model)


def last_layer(model: Any) -> tuple[Array, Array]:
    """The kernel [width, L] and the bias [L] of the output layer."""
    kernel = model.last.kernel[...]
    bias = jnp.zeros(kernel.shape[1]) if model.last.bias is None else model.last.bias[...]
    return kernel, bias
