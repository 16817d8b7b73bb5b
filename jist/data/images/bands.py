"""GeoTIFFs: some bands of one image, and which of its pixels are missing; needs the extra `geo`."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jist.data.errors import UnreadableImageError


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


def read_bands(
    path: str | os.PathLike,
    bands: Sequence[int | str] = (),
    *,
    scale: tuple[int | float, int | float],
    quality: Quality | None = None,
) -> tuple[UInt8[np.ndarray, "height width channels"], Bool[np.ndarray, "height width"]]:
    """Some bands of an image, of any number type, and which of its pixels are missing.

    A pixel is missing if the file says so in any of these bands (its no-data value, an internal
    mask, an alpha band), if it is not a finite number in any of them, or by the quality band.

    Args:
        path: a file that GDAL reads.
        bands: numbers, from 1, or descriptions, in the wanted order; by default all but the quality
            band and alpha.
        scale: the values that become 0 and 255; what lies outside is clipped. Reflectances of
            Sentinel-2 are in units of 1/10,000: (0, 10000).
        quality: the band that names clouds and the like, if there is one.

    Returns:
        Pixels [H, W, C], 0 where they are missing, and what is missing [H, W].

    Raises:
        ImportError: rasterio is not installed.
        ValueError: the scale is empty.
        UnreadableImageError: the file cannot be read, or has no such band.
    """
    low, high = scale
    if not low < high:
        raise ValueError(f"scale must name a lower value and a higher one, got {scale}")
    try:
        import rasterio
        from rasterio.enums import ColorInterp
        from rasterio.errors import RasterioError
    except ImportError as error:
        raise ImportError(
            f"{path}: bands are read through rasterio: pip install 'jist[geo]'"
        ) from error
    try:
        with rasterio.open(path) as file:
            named = None if quality is None else _number(file, quality.band)
            alpha = [i for i, c in enumerate(file.colorinterp, 1) if c == ColorInterp.alpha]
            rest = [i for i in file.indexes if i != named and i not in alpha]
            chosen = [_number(file, band) for band in bands] or rest
            values = file.read(chosen)
            missing = (file.read_masks(chosen) == 0).any(axis=0)
            if named is not None and quality is not None:
                missing |= quality.missing(file.read(named))
    except (RasterioError, LookupError) as error:
        raise UnreadableImageError(f"cannot read image {path}: {error}") from error
    missing |= ~np.isfinite(values).all(axis=0)
    pixels = _to_bytes(np.where(missing, low, values), low, high)
    return np.moveaxis(pixels, 0, -1), missing


def _number(file: Any, band: int | str) -> int:
    """The number of a band in an open file."""
    if isinstance(band, int) and band in file.indexes:
        return band
    if isinstance(band, str) and file.descriptions.count(band) == 1:
        return file.descriptions.index(band) + 1
    described = ", ".join(f"{i} ({d or 'no name'})" for i, d in enumerate(file.descriptions, 1))
    raise LookupError(f"no band {band!r}; it has {described}")


def _to_bytes(
    values: Float[np.ndarray, "channels height width"] | np.ndarray,
    low: int | float,
    high: int | float,
) -> np.ndarray:
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.round(255 * np.clip(shares, 0, 1)).astype(np.uint8)
