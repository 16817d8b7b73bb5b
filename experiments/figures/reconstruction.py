"""Images in rows of three: original, masked and reconstructed."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments.figures import png
from jist.data.images.band_names import shown_channels
from jist.models import MAE
from jist.models.vit import patchify, unpatchify

GREY = 0.5
TITLES = ("original", "masked", "reconstructed")


def views(mae: MAE, pixels: np.ndarray, keep: jax.Array) -> tuple[np.ndarray, ...]:
    """Images [B, S, S, C] uint8 as they are, masked and reconstructed: colours in [0, 1].

    Of bands, three are shown as colours, stretched from their 2nd to their 98th percentile.
    """
    preprocessing = mae.encoder.preprocessing
    images = preprocessing.normalize(jnp.asarray(pixels))
    shown = np.asarray(preprocessing.colours(images))
    found = (
        shown,
        hide(shown, keep, mae),
        np.asarray(preprocessing.colours(_reconstruct(mae, images, keep))),
    )
    if mae.encoder.config.channels == 3 and not preprocessing.bands:
        return found
    colours = shown_channels(preprocessing.bands, mae.encoder.config.channels)
    low, high = np.percentile(shown[..., colours], (2, 98))
    return tuple(np.clip((of[..., colours] - low) / max(high - low, 1e-3), 0, 1) for of in found)


# Defined once in the module, so that pre-training, which draws repeatedly, compiles it once.
@nnx.jit
def _reconstruct(mae: MAE, images: jax.Array, keep: jax.Array) -> jax.Array:
    return mae.reconstruct(images, keep)


def hide(images: np.ndarray, keep: jax.Array, mae: MAE) -> np.ndarray:
    """The same images with the missing patches in grey."""
    patch_size = mae.encoder.config.patch_size
    patches = patchify(jnp.asarray(images), patch_size)
    rows = jnp.arange(len(images))[:, None]
    hidden = jnp.full_like(patches, GREY).at[rows, keep].set(patches[rows, keep])
    return np.asarray(unpatchify(hidden, patch_size))


def draw(columns: tuple[np.ndarray, ...], names: list[str], out: pathlib.Path) -> None:
    """One row per image, one column per kind, written whole or not at all."""
    figure = Figure(figsize=(3 * len(columns), 3.2 * len(names)), layout="tight")
    axes = figure.subplots(len(names), len(columns), squeeze=False)
    for row, name in enumerate(names):
        for column, images in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(images[row])
            axis.set_title(TITLES[column] if row == 0 else "")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row, 0].set_ylabel(name)
    png.write(figure, out, dpi=120)
