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

import jax.numpy as jnp
import numpy as np

from experiments.command.cli import Options, run
from experiments.figures.reconstruction import draw, views
from jist.data import read_image, resize
from jist.masking import fixed_keep
from jist.models import load_mae


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


if __name__ == "__main__":
    run(main, ReconstructOptions, __doc__ or "")
