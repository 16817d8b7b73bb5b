"""Mean, deviation, filter and shape of a source's images, from what lies beside its tensors."""

from typing import Any

from conversion.errors import ConversionError
from conversion.overrides import Overrides, valid
from conversion.source import Source
from jist.models import Preprocessing

# Pillow's numbers of filters, as preprocessor_config.json holds them.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_preprocessing(
    source: Source, interpolation: str, overrides: Overrides, channels: int = 3
) -> Preprocessing:
    """By the user's word, else preprocessor_config.json, else timm's `pretrained_cfg`.

    Args:
        source: the source.
        interpolation: the filter where nothing names one.
        overrides: the user's word.
        channels: of the encoder's images.

    Raises:
        ConversionError: a number for each channel is missing, or values are refused.
    """
    default = Preprocessing.of(channels, interpolation)
    said = source.preprocessor or {}
    timm = (source.config or {}).get("pretrained_cfg") or {}
    resized = RESAMPLING.get(said.get("resample", -1), timm.get("interpolation", interpolation))
    mean = said.get("image_mean", timm.get("mean", default.mean))
    std = said.get("image_std", timm.get("std", default.std))
    if not said.get("do_normalize", True):
        mean, std = 0.0, 1.0
    # (f x - mean) / std of pixels x in [0, 255] is (x / 255 - mean / s) / (std / s) with s = 255 f.
    scale = 255 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255
    mean = _each(overrides.mean or mean, 1 if overrides.mean else scale, channels)
    std = _each(overrides.std or std, 1 if overrides.std else scale, channels)
    if {len(mean), len(std)} != {channels}:
        raise ConversionError(
            f"the encoder takes {channels} channels; --mean and --std need a number for each, got "
            f"{len(mean)} and {len(std)}"
        )
    pairs = overrides.scale or ()
    if len(pairs) % 2 or not all(
        low < high for low, high in zip(pairs[::2], pairs[1::2], strict=True)
    ):
        raise ConversionError(
            f"--scale must be pairs of a lower value and a higher one, got {pairs}"
        )
    scales = tuple(
        (float(low), float(high)) for low, high in zip(pairs[::2], pairs[1::2], strict=True)
    )
    return valid(
        Preprocessing,
        mean=mean,
        std=std,
        interpolation=resized,
        bands=overrides.bands or (),
        scale=scales * channels if len(scales) == 1 else scales,
        resize=overrides.resize or "crop",
        border=source.padding,
    )


def _each(value: Any, scale: float, channels: int) -> tuple[float, ...]:
    """Over `scale`, for every channel; transformers takes one number for all."""
    values = (value,) * channels if isinstance(value, int | float) else value
    return tuple(float(v) if abs(scale - 1) < 1e-6 else v / scale for v in values)
