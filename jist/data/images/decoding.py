"""One image: decoded to RGB, and resized."""

import io
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from jist.data.errors import UnreadableImageError
from jist.models.preprocessing import INTERPOLATIONS

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
# Pillow recognises a file by its first bytes, whatever its name, and would start Ghostscript for
# PostScript. So only these formats are allowed.
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF")

SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_WITHOUT_WHITE = ("I", "F")
_READ = (
    "8-bit grey or RGB, with or without transparency, and 16-bit grey over the full range "
    "(0 to 65535) are read"
)
_TIFF_BITS, _TIFF_CHANNELS, _TIFF_EXTRA, _TIFF_KIND = 258, 277, 338, 339  # numbers of tags
_TIFF_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}

Converted = TypeVar("Converted")


def read_image(path: str | os.PathLike) -> Image.Image:
    """Decodes an image file to RGB.

    Grey levels and palettes become their colours, 16 bits (of grey, and of PNG) are scaled to 8,
    transparent images are laid on white. The orientation that a camera noted in EXIF is not
    applied: pixels stay where they are stored. Of several frames, the first is taken.

    Raises:
        UnreadableImageError: the file is missing, truncated or damaged, its pixels (signed or
            32-bit integers, floats, colours of more than 8 bits in a TIFF) do not say which value
            is white, or a TIFF has a channel that is neither colour nor transparency.
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
        name: its name in error messages.
        convert: applied to the image before its file is closed.

    Raises:
        UnreadableImageError: as `read_image`, or anything that `convert` raises.
    """
    try:
        with Image.open(encoded, formats=_FORMATS) as image:
            return convert(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"cannot read image {name}: it begins like none of {', '.join(_FORMATS)}, or holds "
            f"other pixels: {_READ}"
        ) from error
    # Of a damaged file Pillow's readers raise many kinds of errors: OSError, SyntaxError,
    # struct.error, KeyError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"cannot read image {name}: {reason}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The colours of an image in any of Pillow's modes, as `read_image` says."""
    image.load()
    _refuse_other_pixels(image)
    if image.mode in SIXTEEN_BIT_GREY:
        # Pillow would clip at 255 instead of scaling.
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        grey[fully_transparent(image)] = 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # The colours under transparent pixels are leftovers that are not meant to be seen.
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _refuse_other_pixels(image: Image.Image) -> None:
    """A sensor's values and channels: Pillow drops some without a word, and none is a colour."""
    holds = f"pixels of Pillow's mode {image.mode!r}"
    fits = image.mode not in _WITHOUT_WHITE
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(_TIFF_BITS, (1,)))
        kinds = image.tag_v2.get(_TIFF_KIND, (1,))
        extra = image.tag_v2.get(_TIFF_EXTRA, ())
        # Pillow takes an unspecified fourth channel for transparency.
        unnamed = 0 in extra or (image.mode == "RGBA" and not extra)
        fits = set(kinds) == {1} and not unnamed
        fits = fits and (bits <= 8 or (bits == 16 and image.mode in SIXTEEN_BIT_GREY))
        kind = _TIFF_KINDS.get(max(kinds), "numbers of an unknown kind")
        holds = f"{image.tag_v2.get(_TIFF_CHANNELS, 1)} channel(s) of {bits}-bit {kind}"
        holds += ", at least one neither colour nor transparency" if unnamed else ""
    if not fits:
        raise ValueError(f"it holds {holds}; {_READ}")


def fully_transparent(image: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Which pixels of an image are fully transparent."""
    if image.mode in SIXTEEN_BIT_GREY:
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
        # One call for both: pixels outside the square are never computed.
        image = image.resize(
            (size, size),
            Image.Resampling[interpolation.upper()],
            box=(left, top, left + short, top + short),
        )
    return np.asarray(image)
