"""What values the pixels of a file hold: which are colours, and which Pillow would misread."""

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
READ = (
    "8-bit grey or RGB, with or without transparency, and 16-bit grey over the full range "
    "(0 to 65535) are read; of other pixels, --bands"
)
_WITHOUT_WHITE = ("I", "F")
_BITS, _PHOTOMETRIC, _CHANNELS, _EXTRA, _KIND = 258, 262, 277, 338, 339  # numbers of TIFF tags
_SUBFILE, _REDUCED, _MASK = 254, 1, 4  # what a further image of a TIFF is: a tag and its bits
_NO_DATA = 42113  # GDAL's
_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
_WHITE_IS_ZERO = 0
# Grey levels of a PNG with few bits -> 8 bits; the transparent one is stored in the file's own.
_FEW_BITS = {"L;2": 85, "L;4": 17}
# The brightest pixel of a 16-bit grey TIFF that is a picture lies above the range of sensors of 12
# and 14 bits, and of reflectances in units of 1/10,000.
_BRIGHT = 1 << 14


def load_upright(image: Image.Image) -> Image.Image:
    """Decodes an image, and turns it as EXIF says it has to be shown.

    Raises:
        ValueError: its pixels are no colours, or Pillow would misread them, or pass over pages.
    """
    if isinstance(image, TiffImageFile):
        refuse_pages(_pages(image))
    tiles = getattr(image, "tile", ())  # of files alone, until they are decoded
    raw = tiles[0].args if tiles else ()
    raw = raw if isinstance(raw, str) else next(iter(raw or ()), "")
    image.load()
    _refuse_other_pixels(image)
    if isinstance(image, PngImageFile) and "transparency" in image.info:
        if raw in _FEW_BITS:
            image.info["transparency"] *= _FEW_BITS[raw]
        elif raw == "RGB;16B":
            raise ValueError(f"it holds 16-bit RGB with a transparent colour; {READ}")
    if isinstance(image, TiffImageFile):
        image = _as_a_picture(image)
    return ImageOps.exif_transpose(image)


def turned(
    pixels: Shaped[np.ndarray, "height width *rest"], orientation: int
) -> Shaped[np.ndarray, "turned_height turned_width *rest"]:
    """Stored pixels as EXIF's orientation, 1 to 8, says they have to be shown.

    >>> turned(np.array([[1, 2], [3, 4]]), 6)
    array([[3, 1],
           [4, 2]])
    """
    if orientation in range(5, 9):
        pixels = pixels.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::down, ::right]


def refuse_pages(count: int) -> None:
    """Refuses a TIFF of several pages: they may be bands, times or depths, and one would be read.

    Raises:
        ValueError: there are several.
    """
    if count > 1:
        raise ValueError(
            f"it holds {count} pages, and one could be read: store each in a file of its own, or "
            "bands in one page"
        )


def _pages(image: TiffImageFile) -> int:
    """How many images a TIFF holds, without smaller copies of another and without masks."""
    count = 1
    for frame in range(1, image.n_frames):
        image.seek(frame)
        count += not image.tag_v2.get(_SUBFILE, 0) & (_REDUCED | _MASK)
    image.seek(0)
    return count


def _as_a_picture(image: TiffImageFile) -> Image.Image:
    """A TIFF whose zero is black; `info["no_data"]` is the value that its tag names, if any."""
    tags, deep = image.tag_v2, image.mode in SIXTEEN_BIT_GREY
    top = 65535 if deep else 255
    white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    found: Image.Image = image
    if deep:
        levels = np.asarray(image).astype(np.uint16)
        if 0 < levels.max() < _BRIGHT:
            raise ValueError(
                f"it holds 16-bit grey of at most {levels.max()}: a sensor's values, not a picture "
                f"over the full range (read as bands they need a scale); {READ}"
            )
        if white_is_zero:  # Pillow turns 8 bits around only
            found = Image.fromarray(65535 - levels)
    if _NO_DATA in tags:
        value = _number(str(tags[_NO_DATA]))
        if image.mode not in ("P", "PA"):  # of a palette, it is an index
            value *= top / (2 ** max(tags.get(_BITS, (1,))) - 1)
            value = top - value if white_is_zero else value
        found.info["no_data"] = value
    return found


def _number(text: str) -> float:
    """The number that a tag spells; NaN, which equals no pixel, if it is none."""
    try:
        return float(text.strip(" \0"))
    except ValueError:
        return float("nan")


def fully_transparent(image: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Which pixels of a decoded image are fully transparent."""
    if image.mode in SIXTEEN_BIT_GREY:
        # Pillow would look for the value among those that it has clipped.
        value = image.info.get("transparency")
        stored = np.asarray(image)
        return np.zeros(stored.shape, bool) if value is None else stored == value
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))[:, :, 3] == 0
    return np.zeros((image.height, image.width), bool)


def _refuse_other_pixels(image: Image.Image) -> None:
    """A sensor's values and channels: Pillow drops some without a word, and none is a colour."""
    holds = f"pixels of Pillow's mode {image.mode!r}"
    fits = image.mode not in _WITHOUT_WHITE
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(_BITS, (1,)))
        kinds = image.tag_v2.get(_KIND, (1,))
        extra = image.tag_v2.get(_EXTRA, ())
        # Pillow takes an unspecified fourth channel for transparency.
        unnamed = 0 in extra or (image.mode == "RGBA" and not extra)
        fits = set(kinds) == {1} and not unnamed
        fits = fits and (bits <= 8 or (bits == 16 and image.mode in SIXTEEN_BIT_GREY))
        kind = _KINDS.get(max(kinds), "numbers of an unknown kind")
        holds = f"{image.tag_v2.get(_CHANNELS, 1)} channel(s) of {bits}-bit {kind}"
        holds += ", at least one neither colour nor transparency" if unnamed else ""
    if not fits:
        raise ValueError(f"it holds {holds}; {READ}")
