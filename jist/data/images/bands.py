"""Images of more bands than colours, and which of their pixels are missing; needs `geo`.

Such an image is any file that GDAL reads, mostly a GeoTIFF. Values of any type become bytes by a
scale, because everything that follows holds images as bytes.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from jist.data.images.band_names import number_of
from jist.data.images.decoding import orientation_of
from jist.data.images.missing import missing_beside
from jist.data.images.pixels import turned
from jist.data.images.rasters import image_bands, lies_on_earth, opened, told

_FEW_VALUES = ("uint8", "int8", "uint16", "int16")
Scale = tuple[int | float, int | float]


@dataclasses.dataclass(frozen=True)
class Quality:
    """A band that says of every pixel what it shows.

    Attributes:
        band: its number, from 1, or its description.
        values: the values of pixels that count as missing.
        bits: numbers of bits, from 0: a pixel with any of them set counts as missing.
    """

    band: int | str
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()

    def missing(self, levels: np.ndarray) -> np.ndarray:
        """Which pixels are missing, by their levels in the band."""
        flags = sum(1 << bit for bit in self.bits)
        return np.isin(levels, self.values) | ((levels.astype(np.int64) & flags) != 0)


# No data, shadows of clouds, clouds of medium and high probability, cirrus (Sentinel-2 Products
# Specification Document, Level-2A scene classification).
SENTINEL2_SCL = Quality("SCL", values=(0, 3, 8, 9, 10))
# Fill, dilated cloud, cirrus, cloud, shadow of a cloud (Landsat Collection 2 Level 2 Science
# Product Guide, QA_PIXEL).
LANDSAT_QA_PIXEL = Quality("QA_PIXEL", bits=(0, 1, 2, 3, 4))


@dataclasses.dataclass(frozen=True)
class Bands:
    """Which bands are read of every image, and how.

    Attributes:
        names: numbers, from 1, or descriptions, in the wanted order; none for all but the quality
            band and alpha.
        scale: the values that become 0 and 255, of each band or one for all; what lies outside is
            clipped. Reflectances of Sentinel-2 are in units of 1/10,000: (0, 10000).
        quality: the band that names clouds and the like, if there is one.
        described: names of all bands of a file, in the place of the file's own.

    Raises:
        ValueError: a scale is empty, or there are neither one nor as many as bands.
    """

    names: tuple[int | str, ...]
    scale: tuple[Scale, ...]
    quality: Quality | None = None
    described: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.scale) != 1 and len(self.scale) != len(self.names):
            raise ValueError(
                f"scale must be one, or one for each of {len(self.names)} bands, got "
                f"{len(self.scale)}"
            )
        for low, high in self.scale:
            if not low < high:
                raise ValueError(
                    f"scale must name a lower value and a higher one, got {(low, high)}"
                )

    def describe(self) -> dict[str, Any]:
        """As JSON, for the description of a data set."""
        found = dataclasses.asdict(self)
        return {name: of for name, of in found.items() if of or name != "described"}

    @classmethod
    def of(cls, description: dict[str, Any]) -> "Bands":
        """The bands of a description, read back from JSON."""
        quality = description["quality"]
        if quality is not None:
            values, bits = (tuple(quality[name]) for name in ("values", "bits"))
            quality = Quality(quality["band"], values, bits)
        scale = tuple((low, high) for low, high in description["scale"])
        described = tuple(description.get("described", ()))
        return cls(tuple(description["names"]), scale, quality, described)

    def read(
        self, path: str | os.PathLike, no_data: int | None = None
    ) -> tuple[UInt8[np.ndarray, "height width channels"], Bool[np.ndarray, "height width"]]:
        """The pixels [H, W, C], 0 where they are missing, and which are missing [H, W].

        A pixel is missing if the file says so in any of these bands (its no-data value, an internal
        mask, an alpha band), if it is not a finite number in any of them or holds `no_data` in all,
        by the quality band, or by the mask `NAME.mask.png` beside the file. A picture that lies
        nowhere on Earth is turned as EXIF says, as by `read_image`.

        Raises:
            ImportError: rasterio is not installed.
            UnreadableImageError: the file cannot be read, or has no such band; or its mask.
        """
        with opened(path) as file, told(path):
            pixels, missing = self.read_window(file, None, no_data)
            orientation = 1 if lies_on_earth(file) else orientation_of(path)
        pixels, missing = (turned(of, orientation) for of in (pixels, missing))
        beside = missing_beside(path, missing.shape)
        if beside is not None:
            missing = missing | beside
            pixels[missing] = 0
        return pixels, missing

    def decode(self, path: str | os.PathLike) -> UInt8[np.ndarray, "height width channels"]:
        """The pixels alone, as `read`."""
        return self.read(path)[0]

    def read_window(
        self, file: Any, window: Any, no_data: int | None = None
    ) -> tuple[UInt8[np.ndarray, "height width channels"], Bool[np.ndarray, "height width"]]:
        """As `read`, a window of a file that is open (`opened`), without the mask beside it.

        Args:
            file: of rasterio.
            window: of rasterio; None for the whole file.
            no_data: as `read`.

        Raises:
            LookupError: it has no such band.
        """
        values, missing = self.stored(file, window, no_data)
        pixels = np.empty((*missing.shape, len(values)), np.uint8)
        scales = self.scale if len(self.scale) > 1 else self.scale * len(values)
        # Band by band: a large window is never held as floats as a whole.
        for channel, (band, scale) in enumerate(zip(values, scales, strict=True)):
            if band.dtype.name in _FEW_VALUES:
                table = _table(band.dtype.name, *scale)
                pixels[:, :, channel] = table[band.view(f"u{band.itemsize}")]
            else:
                pixels[:, :, channel] = _to_bytes(np.where(missing, scale[0], band), *scale)
        pixels[missing] = 0
        return pixels, missing

    def stored(
        self, file: Any, window: Any, no_data: int | None = None
    ) -> tuple[np.ndarray, Bool[np.ndarray, "height width"]]:
        """Values as they are stored [C, H, W], and what is missing [H, W]; as `read_window`."""
        numbers, quality = self.numbers(file)
        values = file.read(numbers, window=window)
        missing = _said_missing(file, numbers, values, window)
        if no_data is not None:
            missing |= (values == no_data).all(axis=0)
        if quality is not None and self.quality is not None:
            missing |= self.quality.missing(file.read(quality, window=window))
        if values.dtype.kind == "f":
            missing |= ~np.isfinite(values).all(axis=0)
        return values, missing

    def numbers(self, file: Any) -> tuple[list[int], int | None]:
        """The numbers of the bands in an open file, and that of the quality band.

        Raises:
            LookupError: it has no such band, or one of complex numbers.
        """
        described = names_in(file, self.described)
        quality = None if self.quality is None else number_of(self.quality.band, described)
        wanted = [number_of(name, described) for name in self.names]
        rest = [number for number in image_bands(file) if number != quality]
        complex_ones = [n for n in wanted or rest if "complex" in file.dtypes[n - 1]]
        if complex_ones:
            raise LookupError(
                f"complex numbers in band {complex_ones[0]}, which have no brightness: store their "
                "magnitude in a band of its own"
            )
        return wanted or rest, quality


def names_in(file: Any, described: Sequence[str] = ()) -> list[tuple[int, str | None]]:
    """Numbers and names of the bands of an open file; `described` names them in its place.

    Raises:
        LookupError: these are not as many.
    """
    names = described or file.descriptions
    if len(names) != len(file.indexes):
        raise LookupError(f"{len(file.indexes)} bands in the place of {len(names)}")
    return list(zip(file.indexes, names, strict=True))


def _said_missing(
    file: Any, numbers: list[int], values: np.ndarray, window: Any
) -> Bool[np.ndarray, "height width"]:
    """Which pixels a file says are missing in any of some bands, whose values are given.

    As its masks say, but values are compared here: where they are interleaved pixel by pixel, GDAL
    makes a mask of each band ten times slower than it reads them all.
    """
    from rasterio.enums import MaskFlags

    missing = np.zeros(values.shape[1:], bool)
    masked = []
    for number, band in zip(numbers, values, strict=True):
        flags, value = file.mask_flag_enums[number - 1], file.nodatavals[number - 1]
        if flags == [MaskFlags.nodata] and value is not None:
            with np.errstate(over="ignore"):  # a value that the type cannot hold equals none
                missing |= band == (band.dtype.type(value) if band.dtype.kind == "f" else value)
        elif flags != [MaskFlags.all_valid]:
            masked.append(number)
    if masked and all(MaskFlags.per_dataset in file.mask_flag_enums[n - 1] for n in masked):
        masked = masked[:1]  # one mask for all
    if masked:
        missing |= (file.read_masks(masked, window=window) == 0).any(axis=0)
    return missing


def _to_bytes(values: np.ndarray, low: int | float, high: int | float) -> np.ndarray:
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.round(255 * np.clip(shares, 0, 1)).astype(np.uint8)


@functools.lru_cache(maxsize=64)  # of a table for each band
def _table(dtype: str, low: int | float, high: int | float) -> UInt8[np.ndarray, " values"]:
    """The byte of every value of a type, by the value's bits: ten times faster than arithmetic."""
    bits = np.arange(2 ** (8 * np.dtype(dtype).itemsize), dtype=f"u{np.dtype(dtype).itemsize}")
    return _to_bytes(bits.view(dtype), low, high)


def read_bands(
    path: str | os.PathLike,
    bands: Sequence[int | str] = (),
    *,
    scale: tuple[int | float, int | float],
    quality: Quality | None = None,
) -> tuple[UInt8[np.ndarray, "height width channels"], Bool[np.ndarray, "height width"]]:
    """Some bands of an image, of any number type, and which of its pixels are missing.

    Args, returns, errors: as those of `Bands` and its `read`, with one scale for all bands.
    """
    return Bands(tuple(bands), (scale,), quality).read(path)
