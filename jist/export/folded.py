"""The deployed statistics of a head, folded into its linear layers."""

import numpy as np
from flax import nnx
from jaxtyping import Float

from jist.models import MLP, Scale, Standardize
from jist.models.standardize import EPSILON

# Kernel [inputs, outputs] and bias [outputs]; those of two layers differ in their sizes.
Layer = tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, " _"]]


def folded_layers(head: MLP | nnx.Linear) -> list[Layer]:
    """Kernel and bias of every layer; between two of them is a ReLU and nothing else.

    (x W + b - mean) / sqrt(var + 1e-5) is x W' + b' with W' = W / sqrt(var + 1e-5), column by
    column, and b' = (b - mean) / sqrt(var + 1e-5). Computed in float64, returned in float32.

    Args:
        head: the full network, with its deployed statistics; or one linear layer.
    """
    if isinstance(head, nnx.Linear):
        return [_rounded(*_of(head))]
    found = []
    for i, layer in enumerate(head.layers):
        kernel, bias = _of(layer)
        correction = head.corrections[i] if i < len(head.corrections) else None
        if isinstance(correction, Standardize):
            factor = 1 / np.sqrt(np.asarray(correction.var[...], np.float64) + EPSILON)
            mean = np.asarray(correction.mean[...], np.float64)
            kernel, bias = kernel * factor, (bias - mean) * factor
        elif isinstance(correction, Scale):  # of what the next layer is given
            present = float(np.asarray(correction.present[...]).sum())
            factor = correction.width / present
            kernel, bias = kernel * factor, bias * factor  # a ReLU of a positive multiple
        found.append(_rounded(kernel, bias))
    return found


def _of(layer: nnx.Linear) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.asarray(layer.kernel[...], np.float64)
    bias = np.zeros(kernel.shape[1]) if layer.bias is None else layer.bias[...]
    return kernel, np.asarray(bias, np.float64)


def _rounded(kernel: np.ndarray, bias: np.ndarray) -> Layer:
    return kernel.astype(np.float32), bias.astype(np.float32)
