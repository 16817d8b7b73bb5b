"""Images -> features: the encoder and the masks that the options name, and the extraction."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.command.bands import parse_bands
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs import hub
from experiments.runs.bands import bands_of, fitted, with_bands
from experiments.runs.masks import masks_of, masks_slug
from experiments.runs.remarks import (
    say_how_resized,
    say_missing,
    say_once,
    say_what_is_missing,
)
from experiments.runs.splits import DenseSplit
from experiments.runs.stores import Classified, shared, store_paths
from jist import features
from jist.data import Dataset, MaskedImages, load_dataset, splits_of
from jist.models import (
    Encoder,
    MAEEncoder,
    Preprocessing,
    ViTConfig,
    digest,
    load_any_encoder,
    load_encoder,
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


@dataclasses.dataclass(frozen=True)
class ImageInputs(Classified):
    """CLS features of images by a frozen encoder."""

    options: ImageOptions

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder of the options."""
        return build_encoder(self.options)

    @functools.cached_property
    def _digest(self) -> str:
        return digest(self.encoder)

    @property
    def dim(self) -> int:
        """Numbers in a feature vector."""
        return features.feature_dim(self.encoder, self.options.pool)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits of the data set."""
        return splits_of(self.options.dataset, data_dir=self.options.data_dir)

    @property
    def image_size(self) -> int:
        """Side of the images that the encoder sees, in pixels."""
        return self.encoder.config.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are resized and normalised."""
        return self.encoder.preprocessing

    @property
    def pinned(self) -> Mapping[str, str]:
        """The encoder's digest: pre-training replaces the encoder in its directory."""
        return {"encoder_sha256": self._digest, **hub.revision(self.options.encoder)}

    @property
    def facts(self) -> Mapping[str, Any]:
        """The encoder, and the size of its images and patches in pixels."""
        shape = self.encoder.config
        return {
            "encoder": self.options.encoder_name,
            **self.pinned,
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
        }

    def examples(self, split: str) -> Dataset:
        """The images."""
        return dataset_of(self.options, split)

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> dict[str, DenseSplit]:
        """CLS features; `directory` holds one store for each data set, split, encoder and mask."""
        return self._extracted(self._paths(mask_ratio, directory), mask_ratio, progress)

    def split(
        self, name: str, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> DenseSplit:
        """One of the splits, "train", "test" or "validation"."""
        path = self._paths(mask_ratio, directory)[name]
        return self._extracted({name: path}, mask_ratio, progress)[name]

    def _paths(self, mask_ratio: float, directory: pathlib.Path) -> dict[str, pathlib.Path]:
        pool = "" if self.options.pool == "cls" else f"-{self.options.pool}"
        of = f"{self._digest[:8]}{pool}-{masks_slug(self.options, mask_ratio)}"
        bands = bands_of(self.options)
        if bands is not None:
            read = hashlib.sha256(json.dumps(bands.describe()).encode()).hexdigest()
            of += f"-bands-{read[:8]}"
        of = f"{of}-seed-{self.options.seed}"
        return store_paths(self.options, directory, of, self.split_names)

    def _extracted(
        self, paths: dict[str, pathlib.Path], mask_ratio: float, progress: Progress
    ) -> dict[str, DenseSplit]:
        def extract(split: str, path: pathlib.Path) -> None:
            extract_images(self.options, mask_ratio, self.encoder, split, path, progress)

        return shared(paths, self.examples, extract, self.options.resident_gb)

    def renewed(self, mask: str, mask_ratio: float) -> Callable[[int], np.ndarray] | None:
        """The images encoded again for every epoch under random masks.

        If no patch is removed, random and fixed masks are the same.
        """
        if mask == "fixed" or not mask_ratio:
            return None
        encoder = check_sees_patches(self.options, self.encoder)
        return random_masks(self.options, mask_ratio, encoder)


def build_encoder(options: ImageOptions) -> Encoder:
    """The encoder that the options name, which resizes as they say; a random one is drawn.

    Raises:
        ValueError: an unknown encoder or compute type.
        FileNotFoundError: as `jist.models.load_encoder`.
    """
    encoder = _build(options)
    wanted = resized_before(options.dataset, options.data_dir) or options.resize
    if wanted is not None:
        encoder.preprocessing = dataclasses.replace(encoder.preprocessing, resize=wanted)
    return encoder


def resized_before(dataset: str, data_dir: pathlib.Path | None) -> str | None:
    """How the images of a masked data set were resized; None of others, which are still whole."""
    if not dataset.startswith("masked:"):
        return None
    masked = load_dataset(dataset, "train", data_dir=data_dir)
    assert isinstance(masked, MaskedImages)
    return masked.attributes.get("resize", "crop")


def _build(options: ImageOptions) -> Encoder:
    if options.encode_dtype not in COMPUTE_DTYPES:
        raise UsageError(
            f"encode_dtype must be one of {(*COMPUTE_DTYPES,)}, got {options.encode_dtype!r}"
        )
    dtype = COMPUTE_DTYPES[options.encode_dtype]
    if options.encoder in RANDOM_ENCODERS:
        channels = len(parse_bands(options.bands)) or 3
        side = {} if options.image_size is None else {"image_size": options.image_size}
        shape = dataclasses.replace(RANDOM_ENCODERS[options.encoder](), channels=channels, **side)
        return MAEEncoder(shape, dtype=dtype, rngs=nnx.Rngs(options.seed))
    if options.encoder.startswith("random"):
        raise UsageError(
            f"encoder must be a directory or one of {(*shipped_encoders(), *RANDOM_ENCODERS)}, "
            f"got {options.encoder!r}"
        )
    name = hub.local(options.encoder)
    if options.image_size is None:
        encoder = load_any_encoder(name, dtype=dtype)
    else:
        encoder = load_encoder(name, image_size=options.image_size, dtype=dtype)
    return fitted(encoder, options) if isinstance(encoder, MAEEncoder) else encoder


def dataset_of(options: ImageOptions, split: str) -> Dataset:
    """One split of the data set that the options name; what is remarkable about it is said."""
    dataset = load_dataset(
        options.dataset,
        split,
        data_dir=options.data_dir,
        seed=options.seed,
        test_share=options.test_share,
    )
    for remark in dataset.remarks:
        say_once(remark)
    return with_bands(dataset, bands_of(options))


def extract_images(
    options: ImageOptions,
    mask_ratio: float,
    encoder: Encoder,
    split: str,
    path: pathlib.Path,
    progress: Progress,
) -> None:
    """Extracts the CLS features of a split into a store, and says which images it left out."""
    dataset = dataset_of(options, split)
    if split == "train":
        say_how_resized(dataset, encoder)
        if not options.natural:
            say_what_is_missing(dataset)
    store = features.extract(
        encoder,
        dataset,
        path,
        keep_for=masks_of(options, mask_ratio, encoder),
        pool=options.pool,
        batch_size=options.encode_batch,
        skip_unreadable=options.skip_unreadable,
        skip_empty=options.skip_empty,
        progress=progress,
    )
    if options.natural:
        say_missing(split, store.attributes)
    for skipped in store.attributes["skipped"]:
        progress.console.print(f"skipped, unreadable: {skipped}", soft_wrap=True)


def check_sees_patches(options: ImageOptions, encoder: Encoder) -> MAEEncoder:
    """The encoder, if patches can be left out of what it sees.

    Raises:
        ValueError: it sees images whole.
    """
    if not isinstance(encoder, MAEEncoder):
        raise UsageError(f"encoder={options.encoder} needs whole images, so masks cannot be used")
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
        pool=options.pool,
        batch_size=options.encode_batch,
        skip_unreadable=options.skip_unreadable,
    )
