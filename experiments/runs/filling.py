"""What encoders of whole images are shown in the place of what is hidden of them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int, UInt8
from scipy.ndimage import distance_transform_edt

from jist.features.visible import NO_PATCH
from jist.models import MAE

WHITE = 255


def filled(
    images: UInt8[np.ndarray, "images side side channels"],
    hidden: Bool[np.ndarray, "images side side"],
    method: str,
    mean: tuple[int, ...],
) -> UInt8[np.ndarray, "images side side channels"]:
    """Images with something in the place of what is hidden.

    Args:
        images: [N, S, S, C].
        hidden: which of their pixels are.
        method: painted (white), mean, nearest (the colour of the nearest pixel); any other for the
            images as they are.
        mean: of each channel.
    """
    if method == "painted":
        return np.where(hidden[..., None], np.uint8(WHITE), images)
    if method == "mean":
        return np.where(hidden[..., None], np.array(mean, np.uint8), images)
    if method == "nearest":
        return np.stack([nearest(*pair) for pair in zip(images, hidden, strict=True)])
    return images


def nearest(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """An image [S, S, ...] whose hidden pixels are what the nearest one is that is not hidden.

    >>> nearest(np.array([[[1], [2], [9]]]), np.array([[False, True, True]]))[0, :, 0].tolist()
    [1, 1, 1]
    """
    places: Any = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return image[places[0], places[1]]


def reconstructed(
    mae: MAE,
    images: UInt8[np.ndarray, "images side side channels"],
    hidden: Bool[np.ndarray, "images side side"],
    keep: Int[np.ndarray, "images patches"],
    batch_size: int,
) -> UInt8[np.ndarray, "images side side channels"]:
    """Images whose hidden pixels are predicted by a masked autoencoder from their visible patches.

    Nothing that is hidden has an influence: of a model that predicts a patch but for its mean and
    deviation, these are those of the nearest visible patch.

    Args:
        mae: the model.
        images: [N, S, S, C].
        hidden: which of their pixels are.
        keep: their visible patches, one or more, as `jist.features.visible.natural_keep`.
        batch_size: images at a time.
    """
    mae.eval()
    size = mae.encoder.config.patch_size
    found = np.empty_like(images)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        pairs = zip(images[rows], keep[rows], strict=True)
        borrowed = np.stack([nearest_patches(image, kept, size) for image, kept in pairs])
        missing = batch_size - len(borrowed)
        shown = np.pad(borrowed, [(0, missing), (0, 0), (0, 0), (0, 0)])
        seen = np.pad(keep[rows], [(0, missing), (0, 0)])
        predicted = _reconstruct(
            mae, jnp.asarray(shown), jnp.asarray(np.maximum(seen, 0)), jnp.asarray(seen != NO_PATCH)
        )
        found[rows] = np.asarray(predicted)[: len(borrowed)]
    return np.where(hidden[..., None], found, images)


def nearest_patches(
    image: UInt8[np.ndarray, "side side channels"], keep: Int[np.ndarray, " kept"], size: int
) -> UInt8[np.ndarray, "side side channels"]:
    """An image in which every patch but those of `keep` is the nearest of these."""
    grid = len(image) // size
    gone = np.ones(grid * grid, bool)
    gone[keep[keep != NO_PATCH]] = False
    patches = image.reshape(grid, size, grid, size, -1).swapaxes(1, 2)
    return nearest(patches, gone.reshape(grid, grid)).swapaxes(1, 2).reshape(image.shape)


@nnx.jit
def _reconstruct(
    mae: MAE,
    images: UInt8[Array, "batch side side channels"],
    keep: Int[Array, "batch kept"],
    valid: Bool[Array, "batch kept"],
) -> UInt8[Array, "batch side side channels"]:
    preprocessing = mae.encoder.preprocessing
    found = mae.reconstruct(preprocessing.normalize(images), keep, valid)
    return jnp.round(255 * preprocessing.colours(found)).astype(jnp.uint8)
