"""An image and its missing regions, resized to a square: cut, squashed or padded."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jist.data.images.decoding import Pixels
from jist.models.preprocessing import Preprocessing

# How far Pillow's filters reach, in target pixels when shrinking and source pixels when enlarging.
_REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
Box = tuple[int, int, int, int]


def placement(width: int, height: int, size: int, how: str) -> tuple[Box, Box]:
    """Which part of an image is scaled, and to which part of the square: left, top, right, bottom.

    Args:
        width: of the image in pixels.
        height: likewise.
        size: pixels S of the square's side.
        how: one of `jist.models.preprocessing.RESIZES`. "crop" takes the central square, "squash"
            the whole image to the whole square; "pad" keeps the whole image and its proportions, in
            the middle of the square.

    >>> placement(40, 20, 10, "crop"), placement(40, 20, 10, "pad")
    (((10, 0, 30, 20), (0, 0, 10, 10)), ((0, 0, 40, 20), (0, 2, 10, 7)))
    """
    whole, square = (0, 0, width, height), (0, 0, size, size)
    if how == "squash":
        return whole, square
    if how == "pad":
        longer = max(width, height)
        wide, high = (max(1, round(side / longer * size)) for side in (width, height))
        left, top = round((size - wide) / 2), round((size - high) / 2)
        return whole, (left, top, left + wide, top + high)
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    return (left, top, left + short, top + short), square


def resize(
    image: Pixels,
    size: int,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """Resizes an image to a square as `placement` says; what is padded takes the mean colour.

    An image of that size already is not resized. A border of the preprocessing comes last.

    Args:
        image: an RGB image, or bands [H, W, C], each of which is resized alone.
        size: pixels S of a side.
        preprocessing: how, by which filter, and the colour of padding.

    Returns:
        Pixels [S, S, C], C = 3 of an RGB image.

    Raises:
        ValueError: a size that is not positive.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    return _moved(_square(image, size, preprocessing), preprocessing.border, preprocessing.fill)


def _square(image: Pixels, size: int, preprocessing: Preprocessing) -> np.ndarray:
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
    if (width, height) == (size, size):
        return np.asarray(image)
    box, (left, top, right, bottom) = placement(width, height, size, preprocessing.resize)
    shape = (right - left, bottom - top)
    kind = Image.Resampling[preprocessing.interpolation.upper()]
    # One call to cut and to scale: pixels outside the box are never computed.
    if isinstance(image, np.ndarray):
        bands = (Image.fromarray(np.ascontiguousarray(b)) for b in np.moveaxis(image, 2, 0))
        pixels = np.stack([np.asarray(band.resize(shape, kind, box)) for band in bands], axis=2)
    else:
        pixels = np.asarray(image.resize(shape, kind, box))
    if shape == (size, size):
        return pixels
    square = np.empty((size, size, pixels.shape[2]), np.uint8)
    square[:] = preprocessing.fill
    square[top:bottom, left:right] = pixels
    return square


def resize_missing(
    missing: Bool[np.ndarray, "height width"],
    size: int,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
) -> Bool[np.ndarray, "{size} {size}"]:
    """The missing pixels of an image after `resize`, which takes the same arguments.

    A target pixel is missing if any source pixel that the filter mixes into it is: what lies in a
    missing region has no influence on the rest. Pixels of an image that is only cut stay as they
    are. What is padded is missing; a border is not.
    """
    height, width = missing.shape
    box, (left, top, right, bottom) = placement(width, height, size, preprocessing.resize)
    square = np.ones((size, size), bool)
    square[top:bottom, left:right] = _scaled(
        missing, box, (bottom - top, right - left), preprocessing.interpolation
    )
    return _moved(square, preprocessing.border, False)


def _moved(square: np.ndarray, border: int, filling: bool | tuple[int, ...]) -> np.ndarray:
    """The square, moved down and to the right behind a border."""
    if not border:
        return square
    moved = np.full_like(square, filling)
    moved[border:, border:] = square[:-border, :-border]
    return moved


def _scaled(
    missing: np.ndarray, box: Box, shape: tuple[int, int], interpolation: str
) -> np.ndarray:
    left, top, right, bottom = box
    if (bottom - top, right - left) == shape:
        return missing[top:bottom, left:right]
    if not missing.any():
        return np.zeros(shape, bool)
    if interpolation == "nearest":
        high, wide = shape
        resized = Image.fromarray(missing).resize((wide, high), Image.Resampling.NEAREST, box)
        return np.asarray(resized)
    reach = _REACH[interpolation]
    above, below = _reach(top, bottom - top, shape[0], missing.shape[0], reach)
    before, after = _reach(left, right - left, shape[1], missing.shape[1], reach)
    # Number of missing pixels above and to the left of each corner.
    count = np.pad(np.cumsum(np.cumsum(missing, axis=0, dtype=np.int32), axis=1), [(1, 0), (1, 0)])
    inside = (
        count[np.ix_(below, after)]
        - count[np.ix_(above, after)]
        - count[np.ix_(below, before)]
        + count[np.ix_(above, before)]
    )
    return inside > 0


def _reach(
    start: int, extent: int, size: int, length: int, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """First source pixel that is mixed into each target pixel, and the first after them."""
    if extent == size:
        return start + np.arange(size), start + np.arange(1, size + 1)
    scale = extent / size
    centre = start + (np.arange(size) + 0.5) * scale
    support = reach * max(scale, 1)
    first = np.floor(centre - support + 0.5).astype(int)
    after = np.floor(centre + support + 0.5).astype(int)
    return np.clip(first, 0, length - 1), np.clip(after, 1, length)
