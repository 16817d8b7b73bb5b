"""The masks that options name: fixed or natural."""

from experiments.command.options import ImageOptions, NaturalOptions
from jist.data import NaturalMasks
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
