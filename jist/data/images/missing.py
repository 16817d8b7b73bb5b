"""The missing regions of one image: read with it, and resized with it."""

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

# How far Pillow's filters reach, in target pixels when shrinking and source pixels when enlarging.
_REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3}


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


def resize_missing(
    missing: Bool[np.ndarray, "height width"], size: int, interpolation: str = "bicubic"
) -> Bool[np.ndarray, "{size} {size}"]:
    """The missing pixels of an image after `jist.data.resize`, which takes the same arguments.

    A target pixel is missing if any source pixel that the filter mixes into it is: what lies in a
    missing region has no influence on the rest. Pixels of an image that is only cropped stay as
    they are.
    """
    height, width = missing.shape
    short = min(height, width)
    left, top = (width - short) // 2, (height - short) // 2
    if short == size:
        return missing[top : top + size, left : left + size]
    if not missing.any():
        return np.zeros((size, size), bool)
    if interpolation == "nearest":
        box = (left, top, left + short, top + short)
        return np.asarray(
            Image.fromarray(missing).resize((size, size), Image.Resampling.NEAREST, box)
        )
    above, below = _reach(top, short / size, size, height, _REACH[interpolation])
    before, after = _reach(left, short / size, size, width, _REACH[interpolation])
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
    start: int, scale: float, size: int, length: int, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """First source pixel that is mixed into each target pixel, and the first after them."""
    centre = start + (np.arange(size) + 0.5) * scale
    support = reach * max(scale, 1)
    first = np.floor(centre - support + 0.5).astype(int)
    after = np.floor(centre + support + 0.5).astype(int)
    return np.clip(first, 0, length - 1), np.clip(after, 1, length)
