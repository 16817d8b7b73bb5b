r"""Draws images as a masked autoencoder sees them: original, masked and reconstructed.

    python -m experiments.reconstruct --encoder encoders/mae-base --images cat.jpg dog.jpg \
        --ratio 0.75 --out reconstruction.png

The encoder's directory must hold a decoder: one that pre-training wrote, or that `python -m
conversion` made from a source with a decoder. Visible patches are shown as they are. A model that
predicts normalised pixels does not predict each patch's mean and deviation; these are taken from
the original, so its picture looks better than the prediction alone. Expected for a ViT-Base
and two images on 2 CPU cores: about 20 seconds, most of it compiling.
"""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.reconstruction import draw, views
from experiments.runs import hub
from jist.data import read_image, resize
from jist.data.images.bands import Bands
from jist.masking import fixed_keep
from jist.models import Preprocessing, load_mae


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructOptions(Options):
    """Options of the reconstruction."""

    encoder: str
    """Directory of a masked autoencoder, decoder included, or hf:OWNER/NAME[@REVISION] of one on
    the Hugging Face hub."""
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
        raise UsageError(f"out must end in .png, got {options.out}")
    mae = load_mae(hub.local(options.encoder))
    config, preprocessing = mae.encoder.config, mae.encoder.preprocessing
    read = read_image
    if config.channels != 3 or preprocessing.scale:
        read = own_bands(preprocessing, options.encoder).decode
    pixels = [resize(read(path), config.image_size, preprocessing) for path in options.images]
    ids = jnp.arange(len(pixels), dtype=jnp.uint32)
    keep = fixed_keep(options.seed, ids, config.patches, options.ratio)
    columns = views(mae, np.stack(pixels), keep)
    draw(columns, [path.name for path in options.images], options.out)
    print(f"written: {options.out}")


def own_bands(preprocessing: Preprocessing, encoder: str) -> Bands:
    """How images are read of whose bands the encoder keeps names and scale.

    Raises:
        UsageError: it keeps no scale.
    """
    if not preprocessing.scale:
        raise UsageError(
            f"encoder={encoder} takes {len(preprocessing.mean)} channels and keeps no scale of "
            "them: convert it again with --scale"
        )
    names = preprocessing.bands or range(1, 1 + len(preprocessing.scale))
    return Bands(tuple(names), preprocessing.scale)


if __name__ == "__main__":
    run(main, ReconstructOptions, __doc__ or "")
