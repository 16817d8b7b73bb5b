"""Images -> features: the encoder that the options name, and the features of a data set."""

import pathlib
import re
import time

import jax
import jax.numpy as jnp
from flax import nnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.command.options import ImageOptions, NaturalOptions
from jist import features
from jist.data import Dataset, NaturalMasks, load_dataset
from jist.masking import FixedMask
from jist.models import (
    Encoder,
    MAEEncoder,
    Preprocessing,
    ViTConfig,
    digest,
    load_any_encoder,
    shipped_encoders,
)

RANDOM_ENCODERS = {
    "random-nano": ViTConfig.nano,
    "random-tiny": ViTConfig.tiny,
    "random-small": ViTConfig.small,
    "random-base": ViTConfig.base,
}
COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def progress_bar() -> Progress:
    """The progress bar of every script, drawn by the first process."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=jax.process_index() != 0,
    )


def build_encoder(options: ImageOptions) -> Encoder:
    """The encoder that the options name; a random one is drawn from the seed.

    Raises:
        ValueError: an unknown encoder or compute type.
        FileNotFoundError: as `jist.models.load_encoder`.
    """
    if options.encode_dtype not in COMPUTE_DTYPES:
        raise ValueError(
            f"encode_dtype must be one of {(*COMPUTE_DTYPES,)}, got {options.encode_dtype!r}"
        )
    dtype = COMPUTE_DTYPES[options.encode_dtype]
    if options.encoder in RANDOM_ENCODERS:
        shape = RANDOM_ENCODERS[options.encoder]()
        return MAEEncoder(shape, dtype=dtype, rngs=nnx.Rngs(options.seed))
    if options.encoder.startswith("random"):
        raise ValueError(
            f"encoder must be a directory or one of {(*shipped_encoders(), *RANDOM_ENCODERS)}, "
            f"got {options.encoder!r}"
        )
    return load_any_encoder(options.encoder, dtype=dtype)


def prepare_features(
    options: ImageOptions,
    mask_ratio: float,
    encoder: Encoder,
    directory: pathlib.Path,
    progress: Progress,
) -> dict[str, features.Features]:
    """The features of both splits, read from `directory` or extracted into it.

    Of many processes the first extracts, and the others wait for the files: a collective operation
    would time out after half a minute. `directory` is on a file system that all of them share.
    """
    slug = re.sub(r"\W+", "-", options.dataset.rstrip("/").rsplit("/", 1)[-1])
    of_encoder = f"{digest(encoder)[:8]}-{_masks_slug(options, mask_ratio)}-seed-{options.seed}"
    paths = {split: directory / f"{slug}-{split}-{of_encoder}" for split in ("train", "test")}
    if jax.process_index() == 0:
        for split, path in paths.items():
            _extract(options, mask_ratio, encoder, split, path, progress)
    while True:
        try:
            return {split: features.load(path) for split, path in paths.items()}
        except FileNotFoundError:
            if jax.process_index() == 0:
                raise
            time.sleep(1)


def masks_of(
    options: ImageOptions, mask_ratio: float, encoder: Encoder
) -> FixedMask | NaturalMasks:
    """The masks that the options name: fixed or natural."""
    if not options.natural:
        return FixedMask(encoder.config.patches, mask_ratio, options.seed)
    return natural_masks(options, encoder.preprocessing, options.seed)


def natural_masks(options: NaturalOptions, preprocessing: Preprocessing, seed: int) -> NaturalMasks:
    """The natural masks of the options; missing pixels take the encoder's mean colour."""
    red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
    return NaturalMasks(
        max_missing=options.max_missing,
        no_data=options.no_data,
        clouds=options.simulate_clouds,
        seed=seed,
        fill=(red, green, blue),
    )


def _masks_slug(options: ImageOptions, mask_ratio: float) -> str:
    if not options.natural:
        return f"ratio-{mask_ratio:g}"
    clouds = options.simulate_clouds
    parts = ["natural" if clouds is None else f"clouds-{clouds:g}"]
    parts += [] if options.no_data is None else [f"no-data-{options.no_data}"]
    parts += [f"max-missing-{options.max_missing:g}"] if options.max_missing else []
    return "-".join(parts)


def dataset_of(options: ImageOptions, split: str) -> Dataset:
    """One split of the data set that the options name."""
    return load_dataset(
        options.dataset,
        split,
        data_dir=options.data_dir,
        seed=options.seed,
        test_share=options.test_share,
    )


def _extract(
    options: ImageOptions,
    mask_ratio: float,
    encoder: Encoder,
    split: str,
    path: pathlib.Path,
    progress: Progress,
) -> None:
    store = features.extract(
        encoder,
        dataset_of(options, split),
        path,
        keep_for=masks_of(options, mask_ratio, encoder),
        batch_size=options.encode_batch,
        skip_unreadable=options.skip_unreadable,
        skip_empty=options.skip_empty,
        progress=progress,
    )
    for skipped in store.attributes["skipped"]:
        progress.console.print(f"skipped, unreadable: {skipped}", soft_wrap=True)


def check_sees_patches(options: ImageOptions, encoder: Encoder) -> MAEEncoder:
    """The encoder, if patches can be left out of what it sees.

    Raises:
        ValueError: it sees images whole.
    """
    if not isinstance(encoder, MAEEncoder):
        raise ValueError(f"encoder={options.encoder} needs whole images, so masks cannot be used")
    return encoder


def random_masks(
    options: ImageOptions, mask_ratio: float, encoder: Encoder
) -> features.EpochEncoder:
    """The random masks of the training images, which are encoded again for every epoch.

    Raises:
        ValueError: the encoder needs whole images.
    """
    encoder = check_sees_patches(options, encoder)
    return features.EpochEncoder(
        encoder,
        dataset_of(options, "train"),
        ratio=mask_ratio,
        seed=options.seed,
        batch_size=options.encode_batch,
        skip_unreadable=options.skip_unreadable,
    )
