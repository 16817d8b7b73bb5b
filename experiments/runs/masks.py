"""The masks that options name, fixed or natural, and those of images that come masked."""

from typing import Any

from experiments.command.options import NATURAL, ImageOptions, NaturalOptions
from jist.data import MaskedImages, NaturalMasks, load_dataset
from jist.masking import FixedMask
from jist.models import Encoder, Preprocessing


def masks_of(
    options: ImageOptions, mask_ratio: float, encoder: Encoder
) -> FixedMask | NaturalMasks:
    """The masks that the options name: fixed or natural."""
    if not options.natural:
        return FixedMask(encoder.config.patches, mask_ratio, options.seed)
    return natural_masks(options, encoder.preprocessing, options.seed)


def natural_masks(options: NaturalOptions, preprocessing: Preprocessing, seed: int) -> NaturalMasks:
    """The natural masks of the options; missing pixels take the encoder's mean."""
    return NaturalMasks(
        max_missing=options.max_missing,
        no_data=options.no_data,
        clouds=options.simulate_clouds,
        seed=seed,
        fill=preprocessing.fill,
    )


def masks_slug(options: ImageOptions, mask_ratio: float) -> str:
    """The masks in the name of a feature store."""
    if not options.natural:
        return f"ratio-{mask_ratio:g}"
    clouds = options.simulate_clouds
    parts = ["natural" if clouds is None else f"clouds-{clouds:g}"]
    parts += [] if options.no_data is None else [f"no-data-{options.no_data}"]
    parts += [f"max-missing-{options.max_missing:g}"] if options.max_missing else []
    return "-".join(parts)


def made_with(images: ImageOptions) -> FixedMask | NaturalMasks | None:
    """The masks that a masked data set was made with; None of other images."""
    if not images.dataset.startswith("masked:"):
        return None
    masked = load_dataset(images.dataset, "train", data_dir=images.data_dir)
    assert isinstance(masked, MaskedImages)
    made = dict(masked.attributes["masks"])
    if made.pop("name") == "fixed":
        return FixedMask(**made)
    made["fill"] = tuple(made["fill"])
    return NaturalMasks(**made)


def like_masked(images: ImageOptions) -> dict[str, Any]:
    """Options under which whole images are masked as a masked data set was; none of others."""
    made = made_with(images)
    if made is None:
        return {}
    if isinstance(made, FixedMask):
        return NATURAL | {"mask_ratio": made.ratio}
    return {
        "mask_ratio": None,
        "natural_masks": True,
        "simulate_clouds": made.clouds,
        "no_data": made.no_data,
        "max_missing": made.max_missing,
        "skip_empty": True,
    }
