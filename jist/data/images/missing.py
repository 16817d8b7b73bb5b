"""The missing regions of one image, read with it."""

import functools
import os
import pathlib

import numpy as np
from jaxtyping import Bool
from PIL import Image

from jist.data.errors import UnreadableImageError
from jist.data.images.decoding import decode_image, to_rgb
from jist.data.images.pixels import SIXTEEN_BIT_GREY, fully_transparent, load_upright

MASK_SUFFIX = ".mask.png"


def read_with_missing(
    path: str | os.PathLike, no_data: int | None = None
) -> tuple[Image.Image, Bool[np.ndarray, "height width"]]:
    """Decodes an image file to RGB, and which of its pixels are missing [H, W].

    A pixel is missing if it is fully transparent, if all its channels (but the transparency) hold
    `no_data` as they are stored (colours of 16 bits: as decoded to 8) or the value that a TIFF
    names itself (GDAL's tag 42113), or if it is not zero in the mask file beside the image, whose
    name ends in `.mask.png` in place of the suffix (`scene.jpg`, `scene.mask.png`). A pixel that is
    transparent in part is there, laid on white as everywhere else. A mask is turned as its own EXIF
    says, and has the size of the image as it is shown.

    Args:
        path: the file.
        no_data: the value that stands for a missing pixel, if there is one: of 16-bit grey in
            [0, 65535], of all others in [0, 255]. Lossy compression blurs it: use it with PNG or
            TIFF.

    Raises:
        UnreadableImageError: the file or its mask cannot be decoded, or they differ in size; or
            no pixel of such a file can hold `no_data`.
    """
    path = pathlib.Path(path)
    convert = functools.partial(_with_missing, no_data=no_data)
    image, missing = decode_image(path, str(path), convert)
    beside = missing_beside(path, missing.shape)
    return image, missing if beside is None else missing | beside


def missing_beside(
    path: str | os.PathLike, shape: tuple[int, ...]
) -> Bool[np.ndarray, "height width"] | None:
    """What the mask file beside an image, `NAME.mask.png`, says is missing; None without one.

    Args:
        path: of the image.
        shape: height and width of the image.

    Raises:
        UnreadableImageError: the mask cannot be decoded, or has another size.
    """
    beside = pathlib.Path(path).with_suffix(MASK_SUFFIX)
    if not beside.exists():
        return None
    mask = decode_image(beside, str(beside), _not_zero)
    if mask.shape != shape:
        raise UnreadableImageError(
            f"mask {beside} must have the size of its image, {shape[1]}×{shape[0]}, "
            f"got {mask.shape[1]}×{mask.shape[0]}"
        )
    return mask


def _with_missing(image: Image.Image, no_data: int | None) -> tuple[Image.Image, np.ndarray]:
    image = load_upright(image)
    rgb = to_rgb(image)
    missing = fully_transparent(image)
    stored = image.convert({"1": "L", "P": "RGB", "PA": "RGBA"}.get(image.mode, image.mode))
    if image.info.get("no_data") is not None:
        indexed = image.mode in ("P", "PA")
        missing = missing | _all_equal(image if indexed else stored, image.info["no_data"])
    if no_data is not None:
        largest = 65535 if image.mode in SIXTEEN_BIT_GREY else 255
        if not 0 <= no_data <= largest:
            raise ValueError(f"no_data={no_data} cannot occur in it: it holds 0 to {largest}")
        missing = missing | _all_equal(stored, no_data)
    return rgb, missing


def _not_zero(image: Image.Image) -> np.ndarray:
    return ~_all_equal(load_upright(image), 0)  # of a palette, the index


def _all_equal(image: Image.Image, value: int | float) -> np.ndarray:
    """Which pixels hold a value in all channels but transparency [H, W]."""
    equal = np.asarray(image) == value
    if equal.ndim == 2:
        return equal
    return equal[:, :, : -1 if image.mode.lower().endswith("a") else None].all(axis=-1)
