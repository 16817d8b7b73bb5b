"""Where a patch lies: fixed sine-cosine positions, and stored positions for another grid."""

import numpy as np
from flax import nnx
from jaxtyping import Float

# The cubic convolution kernel's parameter in PyTorch (and OpenCV); JAX's own resize has -0.5.
CUBIC = -0.75


class Position(nnx.Variable):
    """A position embedding: stored with the weights, never trained."""


def sincos_positions(
    dim: int, grid: int, spacing: float = 1.0
) -> Float[np.ndarray, "tokens {dim}"]:
    """Fixed 2-D sine-cosine positions [1 + grid², D]: a zero row for CLS, then the patches by row.

    The first half of a row encodes the column, the second half the row of a patch, each as
    [sin(p ω), cos(p ω)] with ω_k = 10000^(-k / (D/4)), as in the published MAE. Patches lie
    `spacing` apart: Scale-MAE's are those of images whose pixels are as many metres wide.
    """
    omega = 1.0 / 10000 ** (np.arange(dim // 4) / (dim / 4))
    row, column = np.meshgrid(*[spacing * np.arange(grid)] * 2, indexing="ij")
    angles = [np.outer(axis.ravel(), omega) for axis in (column, row)]
    patches = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)
    return np.concatenate([np.zeros((1, dim)), patches]).astype(np.float32)


def resize_positions(
    positions: Float[np.ndarray, "tokens dim"], grid: int
) -> Float[np.ndarray, "resized dim"]:
    """Interpolates stored positions bicubically for another grid of patches; CLS is untouched.

    The numbers are those of PyTorch's bicubic `interpolate` without aligned corners, with which
    the published MAE and Hugging Face's ViTMAE do the same.

    Args:
        positions: [1 + old², D], CLS first, then the patches by row.
        grid: patches along one side of the new grid.

    Returns:
        [1 + grid², D].
    """
    old = round((len(positions) - 1) ** 0.5)
    if grid == old:
        return positions
    weights = _cubic_weights(old, grid)
    patches = positions[1:].reshape(old, old, -1).astype(np.float64)
    patches = np.einsum("ih,jw,hwd->ijd", weights, weights, patches).reshape(grid**2, -1)
    return np.concatenate([positions[:1], patches.astype(positions.dtype)])


def _cubic_weights(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """Weights of every old point in every new one; beyond the edge the edge repeats."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        neighbour = np.floor(centre) + offset
        distance = np.abs(centre - neighbour)
        near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
        far = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
        index = np.clip(neighbour, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), index), np.where(distance <= 1, near, far))
    return weights
