"""Opens a file of vectors, whatever its format."""

import pathlib

from jist.data.errors import DataError
from jist.data.vectors.columns import Columns, listed
from jist.data.vectors.numpy_files import read_npy, read_npz
from jist.data.vectors.parquet import read_parquet, read_parquet_features
from jist.data.vectors.zarr_store import read_zarr

_READERS = {".npz": read_npz, ".npy": read_npy, ".parquet": read_parquet}
SUFFIXES = frozenset(_READERS)  # beside directories that are Zarr stores


def read_columns(path: pathlib.Path, labels: str | None = None) -> Columns:
    """Opens a file of vectors.

    Args:
        path: a file that ends in one of `SUFFIXES`, or the directory of a Zarr store.
        labels: the array or column of the labels, or a `.npy` or `.txt` file of them; by default
            the first of `Y` that is there. For a `.npy` file by default the file beside it whose
            name has `y` for `x`, or `labels` for `features`.

    Raises:
        DataError: it is missing or damaged, of another format, or lacks features or labels, which
            the message says; an array of Python objects, which would have to be unpickled.
    """
    if path.is_dir():
        return read_zarr(path, labels)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(
            f"{path}: features must be a Zarr store or end in {listed(sorted(SUFFIXES))}"
        )
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    return _READERS[suffix](path, labels)


def read_features(path: pathlib.Path, labels: str | None = None) -> Columns:
    """Opens a file of vectors whose labels are not needed.

    Args:
        path: as of `read_columns`.
        labels: the column that holds labels elsewhere: where it is there, too, it is no feature.

    Raises:
        DataError: as `read_columns`, of features.
    """
    if path.suffix.lower() == ".parquet" and path.is_file():
        return read_parquet_features(path, labels)
    return read_columns(path)
