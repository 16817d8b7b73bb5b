"""One image, decoded to RGB."""

import io
import os
import pathlib
import stat
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from jist.data.errors import UnreadableImageError
from jist.data.images.pixels import READ, SIXTEEN_BIT_GREY, fully_transparent, load_upright

IMAGE_SUFFIXES = frozenset(
    {
        *(".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png"),
        *(".tif", ".tiff", ".webp"),
    }
)
# Pillow recognises a file by its first bytes, whatever its name, and would start Ghostscript for
# PostScript. So only these formats are allowed.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")

Converted = TypeVar("Converted")
# An image of colours, or of bands.
Pixels = Image.Image | UInt8[np.ndarray, "height width channels"]


def read_image(path: str | os.PathLike) -> Image.Image:
    """Decodes an image file to RGB.

    Grey levels and palettes become their colours, 16 bits (of grey, and of PNG) are scaled to 8,
    transparent images are laid on white. An image is turned as EXIF says that it has to be shown;
    colour profiles are not applied. Of several frames of an animation, the first is taken.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated or damaged, its pixels (signed
            or 32-bit integers, floats, colours of more than 8 bits in a TIFF, 16-bit grey of a TIFF
            that is dark throughout) do not say which value is white, or a TIFF has a channel that
            is neither colour nor transparency, or several pages.
    """
    return decode_image(path, str(pathlib.Path(path)), lambda image: to_rgb(load_upright(image)))


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
        if not isinstance(encoded, io.BytesIO):
            check_file(encoded)
        with Image.open(encoded, formats=_FORMATS) as image:
            return convert(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"cannot read image {name}: it begins like none of {', '.join(_FORMATS)}, or holds "
            f"other pixels: {READ}"
        ) from error
    # Of a damaged file Pillow's readers raise many kinds of errors: OSError, SyntaxError,
    # struct.error, KeyError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"cannot read image {name}: {reason}") from error


def orientation_of(path: str | os.PathLike) -> int:
    """How EXIF says a picture has to be turned, 1 to 8; 1, not at all, where it says nothing."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a file that GDAL alone reads, or EXIF data that are damaged
        return 1


def check_file(path: str | os.PathLike) -> None:
    """Refuses what holds no image before a library is asked, which would wait or say less.

    Raises:
        OSError: it is not there, a pipe or a device, or an empty file.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):  # GDAL reads some; Pillow says it
        return
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no file; a pipe would be waited for")
    if not found.st_size:
        raise OSError("it is empty (0 bytes)")


def to_rgb(image: Image.Image) -> Image.Image:
    """The colours of a decoded image in any of Pillow's modes, as `read_image` says."""
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
