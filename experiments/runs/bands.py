"""Which bands of the images of a run are read: by its options, its encoder and its first image."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from experiments.command.bands import (
    AUTO,
    parse_bands,
    parse_quality,
    parse_scale,
    typed_scale,
)
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions, NaturalOptions
from experiments.runs import hub
from jist.data import Dataset, MaskedImages, load_dataset
from jist.data.images.band_names import number_of, plain_name
from jist.data.images.band_values import moments, percentiles, some_values
from jist.data.images.bands import Bands, Quality, Scale, names_in
from jist.data.images.folder import Folder
from jist.data.images.published import PUBLISHED
from jist.data.images.rasters import image_bands, opened, told
from jist.models import MAEEncoder, Preprocessing, read_preprocessing, select_bands

Given = TypeVar("Given", bound=ImageOptions)


def are_asked(options: NaturalOptions) -> bool:
    """Whether an option of bands is given."""
    return any(of is not None for of in (options.bands, options.scale, options.quality_band))


def bands_of(options: NaturalOptions) -> Bands | None:
    """How bands are read by options that say all of it; None of images that hold colours."""
    names, scale = parse_bands(options.bands), parse_scale(options.scale)
    if not names or not scale:
        return None
    scale = scale * len(names) if len(scale) == 1 else scale
    if len(scale) != len(names):
        raise UsageError(
            f"scale must be a pair of values, or one for each of {len(names)} bands, got "
            f"{len(scale)} pairs"
        )
    quality = parse_quality(options.quality_band, options.cloudy)
    return Bands(names, scale, quality, _described(options))


def _described(options: NaturalOptions) -> tuple[str, ...]:
    """Names of the bands of a data set whose files do not say them."""
    published = PUBLISHED.get(getattr(options, "dataset", ""))
    return () if published is None else published.bands


def bands_seen(options: ImageOptions) -> Bands | None:
    """How bands are read of further images for a run: as its own were, also if those were masked.

    None of images that hold colours.
    """
    if not options.dataset.startswith("masked:"):
        return bands_of(options)
    masked = load_dataset(options.dataset, "train", data_dir=options.data_dir)
    assert isinstance(masked, MaskedImages)
    description = masked.attributes.get("bands")
    return None if description is None else Bands.of(description)


def with_bands(dataset: Dataset, bands: Bands | None) -> Dataset:
    """A data set whose files are read so.

    Raises:
        UsageError: it has no files.
    """
    if bands is None:
        return dataset
    return dataclasses.replace(_files(dataset), bands=bands)


def resolve(options: NaturalOptions, dataset: Dataset, own: Preprocessing | None) -> dict[str, str]:
    """Bands and scale in full, as options that need neither the encoder nor the images again.

    Args:
        options: those of a script.
        dataset: the training images.
        own: the encoder's; None of one that is made for the bands.

    Raises:
        UsageError: the images have other bands than the options or the encoder name, or a scale is
            needed.
        ImportError: rasterio is not installed.
        DataError: the first image cannot be read.
    """
    paths = [_files(dataset).locate(index) for index in range(len(dataset))]
    quality = parse_quality(options.quality_band, options.cloudy)
    described = _described(options)
    names = _names(parse_bands(options.bands), quality, own, paths[0], described)
    if own is not None:
        of_encoder(names, own)
    if options.scale == AUTO:
        unscaled = Bands(names, ((0, 1),), quality, described)
        scale = percentiles(some_values(paths, unscaled, options.no_data))
    elif options.scale is None:
        scale = _scale_by_default(names, own, paths[0])
    else:
        scale = parse_scale(options.scale)
    full = dataclasses.replace(options, bands=",".join(map(str, names)), scale=typed_scale(scale))
    found = bands_of(full)
    assert found is not None
    return {"bands": str(full.bands), "scale": typed_scale(found.scale)}


def in_full(options: Given) -> Given:
    """The same options, with bands and scale as the encoder and the training images have them.

    Errors: as `resolve` of bands.
    """
    if not options.of_images or options.dataset.startswith("masked:"):
        return options
    own = None
    if not options.encoder.startswith("random"):  # of which `build_encoder` knows the names
        own = read_preprocessing(hub.local(options.encoder))
    asked = are_asked(options)
    if not asked and (own is None or (len(own.mean) == 3 and not own.bands)):
        return options
    found = bands_of(options)
    if found is not None and len(parse_scale(options.scale)) == len(found.names):
        if own is not None:
            of_encoder(found.names, own)
        return options
    images = load_dataset(
        options.dataset,
        "train",
        data_dir=options.data_dir,
        seed=options.seed,
        test_share=options.test_share,
    )
    return dataclasses.replace(options, **resolve(options, images, own))


def fitted(encoder: MAEEncoder, options: ImageOptions) -> MAEEncoder:
    """An encoder for the bands of the options: by name as many as they are, else by position.

    Raises:
        UsageError: it has not all of those bands, or another number of channels.
    """
    names = parse_bands(options.bands)
    own, channels = encoder.preprocessing.bands, encoder.config.channels
    if not names:
        if channels != 3 and not options.dataset.startswith("masked:"):
            raise UsageError(
                f"encoder={options.encoder} takes {channels} channels, and the images of "
                f"{options.dataset} are read as colours here"
            )
        return encoder
    found = of_encoder(names, encoder.preprocessing)
    return encoder if found in ((), own) else select_bands(encoder, found)


def of_encoder(names: Sequence[int | str], own: Preprocessing) -> tuple[str, ...]:
    """The encoder's names of the bands of images; none if they are matched by position.

    Raises:
        UsageError: it has some of those bands but not all, or another number of channels.
    """
    known = {plain_name(name): name for name in own.bands}
    found = [known.get(plain_name(str(name))) for name in names]
    listed = ",".join(map(str, names))
    if any(found):
        lacking = [str(name) for name, of in zip(names, found, strict=True) if of is None]
        if lacking:
            raise UsageError(
                f"bands {listed} are not all among the encoder's: {', '.join(lacking)} missing; "
                f"it has {', '.join(own.bands)}"
            )
        return tuple(name for name in found if name)
    if len(names) != len(own.mean):
        has = f" ({', '.join(own.bands)})" if own.bands else ""
        raise UsageError(
            f"bands {listed} are {len(names)}, and the encoder takes {len(own.mean)} channels{has}"
        )
    return ()


def new_preprocessing(options: NaturalOptions, dataset: Dataset) -> Preprocessing:
    """That of an encoder that is to be trained on the bands of resolved options.

    Mean and deviation are those of some training images, once their values are scaled.
    """
    bands = bands_of(options)
    assert bands is not None
    paths = [_files(dataset).locate(index) for index in range(len(dataset))]
    mean, std = moments(some_values(paths, bands, options.no_data), bands.scale)
    names = [name for name in bands.names if isinstance(name, str)]
    named = tuple(names) if len(names) == len(bands.names) else ()
    return Preprocessing(mean, std, bands=named, scale=tuple(bands.scale))


def _files(dataset: Dataset) -> Folder:
    if not isinstance(dataset, Folder):
        raise UsageError(
            f"dataset={dataset.name}: bands are read of image files, as of folder:PATH or "
            "images:PATH"
        )
    return dataset


def _names(
    asked: Sequence[int | str],
    quality: Quality | None,
    own: Preprocessing | None,
    path: str,
    own_names: tuple[str, ...],
) -> tuple[int | str, ...]:
    with opened(path) as file, told(path):
        described = names_in(file, own_names)
        colours = image_bands(file)
    try:
        hidden = None if quality is None else number_of(quality.band, described)
        for name in asked:
            number_of(name, described)
    except LookupError as error:
        raise UsageError(f"bands: {path} has {error.args[0]}") from None
    if asked:
        return tuple(asked)
    rest = [(number, name) for number, name in described if number in colours and number != hidden]
    if own is not None and own.bands:
        there = {plain_name(name) for _, name in rest if name}
        lacking = [name for name in own.bands if plain_name(name) not in there]
        if not lacking:
            return own.bands
        if there or len(rest) != len(own.bands):
            raise UsageError(
                f"bands {', '.join(lacking)} of the encoder are not in {path}: the encoder has "
                f"{', '.join(own.bands)}, the file {_listed(rest)}; --bands takes some by name"
            )
        return tuple(number for number, _ in rest)
    if own is not None and len(rest) != len(own.mean):
        raise UsageError(
            f"bands must be {len(own.mean)}, as many as the encoder has channels; {path} has "
            f"{_listed(rest)}: choose with --bands"
        )
    plain = [plain_name(name) if name else "" for _, name in rest]
    usable = all(plain) and len({*plain}) == len(plain) and not any(map(str.isdecimal, plain))
    return tuple(plain) if usable else tuple(number for number, _ in rest)


def _listed(described: Sequence[tuple[int, str | None]]) -> str:
    return f"{len(described)} ({', '.join(name or str(number) for number, name in described)})"


def _scale_by_default(
    names: tuple[int | str, ...], own: Preprocessing | None, path: str
) -> tuple[Scale, ...]:
    """The encoder's scale of these bands; of bytes, the bytes themselves."""
    if own is not None and own.scale:
        by_name = {plain_name(name): of for name, of in zip(own.bands, own.scale, strict=False)}
        found = [by_name.get(plain_name(str(name))) for name in names]
        if None not in found:
            return tuple(of for of in found if of)
        if len(names) == len(own.scale):
            return own.scale
    with opened(path) as file:
        kinds = {file.dtypes[number - 1] for number in image_bands(file)}
    if kinds == {"uint8"}:
        return ((0.0, 255.0),)
    raise UsageError(
        f"scale is needed: {path} holds {', '.join(sorted(kinds))}. Give the values that become "
        "black and white, such as --scale 0,10000, or auto for percentiles of the training images"
    )
