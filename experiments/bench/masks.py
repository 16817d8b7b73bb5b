"""Random masks beside fixed ones, and beside none: what a mask costs, and what it saves.

All decode scanned digits and encode their visible patches; features under fixed masks, and without
any, are written to disk as well, and the encoder's weights hashed once for each data set. Random
and fixed masks need the same matrix products, so one should be as fast as the other; whole images
need four times as many as those of which a quarter is left.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx

from experiments.bench.encode import image_flops
from experiments.bench.timing import JIST, Case, Variant, timed
from jist import features
from jist.data import Dataset, load_dataset
from jist.data.images.digits import Digits
from jist.features.random_masks import epoch_keep
from jist.features.visible import KeepFor
from jist.masking import FixedMask
from jist.models import MAEEncoder, ViTConfig

# Encoder, ratio, images, so many that what is done once (hashing the weights, making a store) is
# little; and images that are encoded whole.
CASES = (
    ("nano, 32 pixels", ViTConfig.nano(), 0.5, 16384, 2048),
    ("nano, 32 pixels", ViTConfig.nano(), 0.75, 16384, 2048),
    ("ViT-Base, 224 pixels", ViTConfig.base(), 0.75, 512, 64),
)
QUICK_CASES = (("a small ViT", ViTConfig(8, 2, dim=8, depth=1, heads=2, mlp_dim=16), 0.5, 12, 3),)


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """A small encoder and a large one; with `quick` a tiny one."""
    for name, config, ratio, images, whole in QUICK_CASES if quick else CASES:
        jax.clear_caches()  # else the same encoder a second time would cost no compilation
        encoder = MAEEncoder(config, rngs=nnx.Rngs(0))
        yield case(name, encoder, digits(images), digits(whole), ratio)


def digits(count: int) -> Dataset:
    """Scanned digits, over and over until there are so many."""
    scans = load_dataset("digits", "train")
    assert isinstance(scans, Digits)
    rows = np.arange(count) % len(scans)
    return dataclasses.replace(
        scans,
        keys=tuple(f"{scans.keys[row]}, number {number}" for number, row in enumerate(rows)),
        labels=scans.labels[rows],
        scans=scans.scans[rows],
    )


def case(name: str, encoder: MAEEncoder, dataset: Dataset, whole: Dataset, ratio: float) -> Case:
    """Random masks against fixed ones, and against none.

    Args:
        name: of the encoder.
        encoder: what encodes.
        dataset: the images that are masked.
        whole: those that are not.
        ratio: masking ratio.

    Raises:
        RuntimeError: the same masks do not give the same features both ways.
    """
    patches, epoch = encoder.config.patches, iter(range(1, 1_000_000))

    def batch_size(images: Dataset) -> int:
        return min(256, len(images))  # a batch that is not full would be padded

    encode = features.EpochEncoder(
        encoder, dataset, ratio=ratio, seed=0, batch_size=batch_size(dataset), in_memory=False
    )

    def extract(images: Dataset, keep_for: KeepFor) -> np.ndarray:
        with tempfile.TemporaryDirectory() as scratch:
            out = pathlib.Path(scratch) / "features"
            return features.extract(
                encoder, images, out, keep_for=keep_for, batch_size=batch_size(images)
            ).cls

    def same_masks(ids):
        return epoch_keep(0, 0, ids, patches, ratio)

    taken, cls = timed(lambda: encode(0))
    difference = float(np.abs(cls - extract(dataset, same_masks)).max())
    if not difference < 1e-4:
        raise RuntimeError(f"the same masks give features that are {difference:.2g} apart")
    fixed, none = (FixedMask(seed=0, patches=patches, ratio=r) for r in (ratio, 0.0))
    return Case(
        name=f"{name}, ratio {ratio:g}",
        unit="images/s",
        variants={
            JIST: Variant(lambda: encode(next(epoch)), len(dataset), first_run_s=taken),
            "jist, fixed masks": Variant(lambda: extract(dataset, fixed), len(dataset)),
            "jist, ratio 0": Variant(
                lambda: extract(whole, none), len(whole), flops=image_flops(encoder.config, patches)
            ),
        },
        flops=image_flops(encoder.config, fixed.kept),
        facts={"largest_difference": difference},
    )
