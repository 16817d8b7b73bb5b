"""One image: decoded to RGB, and resized."""

import io
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from jist.data.errors import UnreadableImageError
from jist.models.preprocessing import INTERPOLATIONS

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})

_SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_WITHOUT_WHITE = ("I", "F")

Converted = TypeVar("Converted")


def read_image(path: str | os.PathLike) -> Image.Image:
    """Decodes an image file to RGB.

    Grey levels and palettes become their colours, 16 bits are scaled to 8, transparent images are
    laid on white. The orientation that a camera noted in EXIF is not applied: pixels stay where
    they are stored. Of several frames, the first is taken.

    Raises:
        UnreadableImageError: the file is missing, truncated or damaged, or its pixel type (32-bit
            integers or floats) does not say which value is white.
    """
    return decode_image(path, str(pathlib.Path(path)), to_rgb)


def decode_image(
    encoded: str | os.PathLike | io.BytesIO,
    name: str,
    convert: Callable[[Image.Image], Converted],
) -> Converted:
    """Decodes from a path or from memory.

    Args:
        encoded: the path, or the bytes of the file.
        name: how errors call it.
        convert: what is made of the image before its file is closed.

    Raises:
        UnreadableImageError: as `read_image`, or whatever else `convert` raises.
    """
    try:
        with Image.open(encoded) as image:
            return convert(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"cannot read image {name}: it begins like no image format that Pillow knows"
        ) from error
    # Pillow's readers let whatever a damaged file provokes in them escape: OSError, SyntaxError,
    # struct.error, KeyError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"cannot read image {name}: {reason}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The colours of an image in any of Pillow's modes, as `read_image` says."""
    image.load()
    if image.mode in _WITHOUT_WHITE:
        raise ValueError(
            f"pixels of Pillow's mode {image.mode!r} (32 bits) have no defined white; "
            "store 8 or 16 bits"
        )
    if image.mode in _SIXTEEN_BIT_GREY:
        # Pillow would clip at 255 instead of scaling.
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        grey[fully_transparent(image)] = 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # The colours under transparent pixels are leftovers that nobody was meant to see.
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def fully_transparent(image: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Which pixels of an image show nothing of it."""
    if image.mode in _SIXTEEN_BIT_GREY:
        # Pillow would look for the value among those that it has clipped.
        value = image.info.get("transparency")
        stored = np.asarray(image)
        return np.zeros(stored.shape, bool) if value is None else stored == value
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))[:, :, 3] == 0
    return np.zeros((image.height, image.width), bool)


def resize(
    image: Image.Image, size: int, interpolation: str = "bicubic"
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Scales the shorter side to `size` and cuts out the central square.

    An image of that size already is left as it is.

    Args:
        image: an RGB image.
        size: pixels S of a side.
        interpolation: name of the Pillow filter, one of `jist.models.preprocessing.INTERPOLATIONS`.

    Returns:
        Pixels [S, S, 3].

    Raises:
        ValueError: a size that is not positive, an unknown filter.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}")
    if image.size != (size, size):
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        # One call for both: nothing is computed that the cut would throw away.
        image = image.resize(
            (size, size),
            Image.Resampling[interpolation.upper()],
            box=(left, top, left + short, top + short),
        )
    return np.asarray(image)
