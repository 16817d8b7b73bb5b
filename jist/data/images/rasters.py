"""Files that GDAL reads, through rasterio; needs `geo`."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

from jist.data.errors import UnreadableImageError
from jist.data.images.decoding import check_file
from jist.data.images.pixels import refuse_pages


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Any]:
    """A file, open in rasterio.

    Raises:
        ImportError: rasterio is not installed.
        UnreadableImageError: the file cannot be opened, or is a TIFF of several pages.
    """
    rasterio = load_rasterio(path)
    with told(path):
        check_file(path)
        file = rasterio.open(path)
    with file:
        if file.driver == "GTiff":  # of which smaller copies and masks are no pages
            try:
                refuse_pages(len(file.subdatasets))
            except ValueError as error:
                raise UnreadableImageError(f"cannot read image {path}: {error}") from None
        yield file


@contextlib.contextmanager
def told(path: str | os.PathLike) -> Iterator[None]:
    """Names the file in what rasterio, a file or a band that cannot be read raise."""
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, OSError, LookupError) as error:
        # GDAL's own words: rasterio often says no more than that a read has failed.
        reason = " ".join(str(error.__cause__ or error).split())
        raise UnreadableImageError(f"cannot read image {path}: {reason}") from error


def load_rasterio(wanted_for: object) -> Any:
    """The package, which need not be installed.

    Raises:
        ImportError: it is not; the message names the extra.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError as error:
        raise ImportError(
            f"{wanted_for}: bands are read through rasterio: pip install -e '.[geo]'"
        ) from error
    # Pixels are wanted here, wherever on Earth they lie.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    return rasterio


def lies_on_earth(file: Any) -> bool:
    """Whether an open file says where on Earth it lies."""
    return file.crs is not None or not file.transform.is_identity or bool(file.gcps[0])


def colour_bands(file: Any) -> tuple[int, ...] | None:
    """The numbers of red, green and blue of an open file; None where its bands are no such colours.

    Of a file that does not say what its bands are, the first three.
    """
    from rasterio.enums import ColorInterp

    kinds = dict(zip(file.colorinterp, file.indexes, strict=True))
    named = [kinds.get(kind) for kind in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)]
    if None not in named:
        return tuple(number for number in named if number is not None)
    unsaid = {ColorInterp.undefined, ColorInterp.gray}  # of which the first of unnamed bands is one
    return (1, 2, 3) if file.count >= 3 and {*file.colorinterp[:3]} <= unsaid else None


def image_bands(file: Any) -> list[int]:
    """The numbers of the bands of an open file, but alpha."""
    from rasterio.enums import ColorInterp

    kinds = zip(file.indexes, file.colorinterp, strict=True)
    return [number for number, kind in kinds if kind != ColorInterp.alpha]
