"""What values the bands of some images hold: to choose a scale, and to normalise."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jist.data.images.bands import Bands, Scale
from jist.data.images.rasters import opened

IMAGES, PIXELS = 100, 4096  # of each image so many at most; both spread evenly
PERCENTILES = (2, 98)


def some_values(
    paths: Sequence[str], bands: Bands, no_data: int | None = None
) -> Float[np.ndarray, "pixels channels"]:
    """Stored values [P, C] of pixels that are there; the same ones for the same images.

    Args:
        paths: files of images.
        bands: which are read; their scale is not used.
        no_data: as `Bands.read`.

    Raises:
        ImportError, UnreadableImageError: as `Bands.read`.
    """
    found = [np.zeros((0, len(bands.names)))]
    for place in np.unique(np.linspace(0, len(paths) - 1, IMAGES).astype(int)):
        with opened(paths[int(place)]) as file:
            values, missing = bands.stored(file, None, no_data)
        there = values[:, ~missing].T
        found.append(there[:: -(-len(there) // PIXELS) or 1].astype(np.float64))
    return np.concatenate(found)


def percentiles(values: Float[np.ndarray, "pixels channels"]) -> tuple[Scale, ...]:
    """The 2nd and 98th percentile of each band, to four digits.

    >>> percentiles(np.arange(101.0)[:, None])
    ((2.0, 98.0),)
    """
    found = np.percentile(values, PERCENTILES, axis=0).T
    return tuple((float(f"{low:.4g}"), float(f"{high:.4g}")) for low, high in found)


def moments(
    values: Float[np.ndarray, "pixels channels"], scale: Sequence[Scale]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each band, scaled to [0, 1]; a band of one value deviates by 1."""
    low, high = np.array(scale).T
    shares = np.clip((values - low) / (high - low), 0, 1)
    deviation = shares.std(axis=0)
    deviation[deviation == 0] = 1
    return tuple(np.round(shares.mean(axis=0), 6).tolist()), tuple(np.round(deviation, 6).tolist())
