"""Options of bands and of resizing: as they are typed, and what they mean."""

import dataclasses
from collections.abc import Sequence

from experiments.command.errors import UsageError
from jist.data.images.bands import LANDSAT_QA_PIXEL, SENTINEL2_SCL, Quality, Scale
from jist.models.preprocessing import RESIZES

AUTO = "auto"
_COLOURS = 3
PRESETS = {"SCL": SENTINEL2_SCL, "QA_PIXEL": LANDSAT_QA_PIXEL}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BandOptions:
    """Which bands of images are read, how their values become pixels, and these a square."""

    bands: str | None = None
    """GeoTIFFs and other images of bands (pip install -e '.[geo]'): which are read, by number or
    name, as in B4,B3,B2; or one three times, as 1,1,1, for an encoder of colours. By default those
    that the encoder names, else all."""
    scale: str | None = None
    """Bands: the values that become black and white, as in 0,10000, or such a pair for each band in
    turn; or auto: percentiles 2 and 98 of the training images. By default the encoder's own."""
    resize: str | None = None
    """How an image becomes a square of the encoder's size: crop takes the central square, squash
    ignores the proportions, pad keeps the whole image and fills the rest with the mean colour (of
    natural masks that counts as missing). By default the encoder's own, mostly crop."""
    image_size: int | None = None
    """Side to which images are resized, in pixels, a multiple of the encoder's patches; positions
    are interpolated. By default the encoder's own. Twice the side is four times the work."""

    def __post_init__(self) -> None:
        parse_bands(self.bands)
        parse_scale(self.scale)
        if self.resize not in (None, *RESIZES):
            raise UsageError(f"resize must be one of {RESIZES}, got {self.resize!r}")


def parse_bands(text: str | None) -> tuple[int | str, ...]:
    """Numbers and names; none if none are given.

    >>> parse_bands("B8A, 4,B2")
    ('B8A', 4, 'B2')

    Raises:
        UsageError: a name is empty, or one of several is there twice.
    """
    if text is None:
        return ()
    names = [name.strip() for name in text.split(",")]
    as_grey = len(names) == _COLOURS and len({*names}) == 1
    if not all(names) or (len({*names}) < len(names) and not as_grey):
        raise UsageError(
            "bands must name each band once, as in B4,B3,B2 or 4,3,2, or one band three times, "
            f"which colours see as grey, got {text!r}"
        )
    return tuple(int(name) if name.isdecimal() else name for name in names)


def parse_scale(text: str | None) -> tuple[Scale, ...]:
    """Pairs of values; none if none are given, or they follow from the images.

    >>> parse_scale("0,10000,-1.5,20")
    ((0.0, 10000.0), (-1.5, 20.0))

    Raises:
        UsageError: they are no pairs of a lower value and a higher one.
    """
    if text in (None, AUTO):
        return ()
    try:
        values = [float(value) for value in str(text).split(",")]
    except ValueError:
        values = []
    pairs = tuple(zip(values[::2], values[1::2], strict=False))
    if not values or len(values) % 2 or not all(-1e38 < low < high < 1e38 for low, high in pairs):
        raise UsageError(
            "scale must be auto, or pairs of a lower value and a higher one, as in 0,10000, got "
            f"{text!r}"
        )
    return pairs


def parse_quality(band: str | None, cloudy: str | None) -> Quality | None:
    """The quality band and what of it counts as missing.

    >>> parse_quality("3", "SCL").values, parse_quality("QA", "3,8").values
    ((0, 3, 8, 9, 10), (3, 8))

    Raises:
        UsageError: one is given without the other, or the values are no whole numbers.
    """
    if band is None:
        if cloudy is not None:
            raise UsageError("--cloudy needs --quality-band")
        return None
    preset = PRESETS.get((band if cloudy is None else cloudy).strip().upper())
    number = int(band) if band.isdecimal() else band
    if preset is not None:
        return dataclasses.replace(preset, band=number)
    try:
        values = tuple(int(value) for value in (cloudy or "").split(","))
    except ValueError:
        raise UsageError(
            f"quality_band={band}: --cloudy must say which of its values are missing pixels, as in "
            f"3,8,9,10, or be one of {(*PRESETS,)}, got {cloudy!r}"
        ) from None
    return Quality(number, values)


def typed_scale(scale: Sequence[Scale]) -> str:
    """A scale as it is typed.

    >>> typed_scale([(0.0, 10000.0), (-1.5, 20.0)])
    '0,10000,-1.5,20'
    """
    return ",".join(f"{value:.10g}" for pair in scale for value in pair)
