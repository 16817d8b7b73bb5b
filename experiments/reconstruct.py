r"""What a masked autoencoder makes of images: original, masked and reconstructed, side by side.

    python -m experiments.reconstruct --encoder encoders/mae-base --images cat.jpg dog.jpg \
        --ratio 0.75 --out reconstruction.png

The encoder's directory must hold a decoder: what `python -m conversion` makes of a source that has
one, or what pre-training writes. Visible patches are shown as they are. A model that predicts
normalised pixels leaves each patch's mean and deviation open; those are then taken from the
original, so that its picture looks better than what it alone knows. A ViT-Base takes about 20
seconds on two cores for two images, most of it compiling.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments import png
from experiments.cli import Options, run
from jist.data import read_image, resize
from jist.masking import fixed_keep
from jist.models import MAE, Preprocessing, load_mae
from jist.models.vit import patchify, unpatchify

GREY = 0.5
TITLES = ("original", "masked", "reconstructed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructOptions(Options):
    """Options of the reconstruction."""

    encoder: pathlib.Path
    """Directory of a masked autoencoder, decoder included."""
    images: tuple[pathlib.Path, ...]
    """Image files."""
    ratio: float = 0.75
    """Share of the patches that is removed."""
    out: pathlib.Path = pathlib.Path("reconstruction.png")
    """The picture to write, a .png."""
    seed: int = 0
    """Decides which patches are removed."""


def main(options: ReconstructOptions) -> None:
    """Reads, reconstructs and draws."""
    if options.out.suffix.lower() != ".png":
        raise ValueError(f"out must end in .png, got {options.out}")
    mae = load_mae(options.encoder)
    config, preprocessing = mae.encoder.config, mae.encoder.preprocessing
    pixels = [
        resize(read_image(path), config.image_size, preprocessing.interpolation)
        for path in options.images
    ]
    ids = jnp.arange(len(pixels), dtype=jnp.uint32)
    keep = fixed_keep(options.seed, ids, config.patches, options.ratio)
    columns = views(mae, np.stack(pixels), keep)
    draw(columns, [path.name for path in options.images], options.out)
    print(f"written: {options.out}")


def views(mae: MAE, pixels: np.ndarray, keep: jax.Array) -> tuple[np.ndarray, ...]:
    """Images [B, S, S, 3] uint8 as they are, masked and reconstructed: colours in [0, 1]."""
    preprocessing = mae.encoder.preprocessing
    images = preprocessing.normalize(jnp.asarray(pixels))
    shown = to_display(images, preprocessing)
    return (
        shown,
        hide(shown, keep, mae),
        to_display(_reconstruct(mae, images, keep), preprocessing),
    )


# Of the module, so that pre-training, which draws again and again, compiles it once.
@nnx.jit
def _reconstruct(mae: MAE, images: jax.Array, keep: jax.Array) -> jax.Array:
    return mae.reconstruct(images, keep)


def to_display(images: jax.Array, preprocessing: Preprocessing) -> np.ndarray:
    """Normalised images [B, H, W, 3] as colours in [0, 1]."""
    colours = images * jnp.asarray(preprocessing.std) + jnp.asarray(preprocessing.mean)
    return np.asarray(jnp.clip(colours, 0, 1))


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


if __name__ == "__main__":
    run(main, ReconstructOptions, __doc__ or "")
