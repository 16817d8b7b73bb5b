"""Vectors in NumPy's files. Nothing is unpickled.

Those in `.npy` files and in uncompressed `.npz` files are memory-mapped: rows are read when used.
"""

import pathlib
import re
import zipfile
from typing import Any

import numpy as np

from jist.data.errors import DataError
from jist.data.sparse.matrix import SparseTable, is_sparse, load_csr
from jist.data.vectors.columns import (
    KEY,
    SPLIT,
    Columns,
    X,
    Y,
    find,
    find_labels,
    has,
    label_file,
    listed,
    load_array,
    short,
)


def splits_of_npz(path: pathlib.Path) -> bool:
    """Whether a `.npz` file has arrays for each split, called `x_train`, `x_test` and so on."""
    with _opened(path) as file:
        return any(f"{name}_train" in file.files for name in X)


def read_npz(path: pathlib.Path, labels: str | None, ending: str = "") -> Columns:
    """The arrays of a `.npz` file, of those whose names end in `ending` ("_train", say)."""
    with _opened(path) as file:
        there = tuple(file.files)
        if is_sparse(file.files):
            return _read_sparse(path, file, labels)

        def array(names: tuple[str, ...], wanted: str | None = None) -> np.ndarray | None:
            wanted = None if wanted is None else wanted + ending
            name = find(path, there, tuple(name + ending for name in names), wanted)
            if name is None:
                return None
            mapped = _mapped_member(path, name)
            return _member(file, path, name) if mapped is None else mapped

        x = array(X)
        if x is None:
            raise DataError(
                f"{path} has no array of features, called {listed(x + ending for x in X)}; "
                + has(there)
            )
        label = find_labels(labels, lambda wanted: array(Y, wanted), there)
        return Columns(path=path, x=x, label=label, split=array(SPLIT), key=array(KEY))


def _read_sparse(path: pathlib.Path, file: Any, labels: str | None) -> Columns:
    """A sparse matrix of SciPy; other arrays of its file may be labels, split and keys."""
    there = tuple(file.files)

    def array(names: tuple[str, ...], wanted: str | None = None) -> np.ndarray | None:
        name = find(path, there, names, wanted)
        return None if name is None else _member(file, path, name)

    label = find_labels(labels, lambda wanted: array(Y, wanted), there)
    beside = _beside(path) if label is None else None
    return Columns(
        path=path,
        x=SparseTable(*load_csr(path)),
        label=label if beside is None else label_file(beside),
        split=array(SPLIT),
        key=array(KEY),
    )


def read_npy(path: pathlib.Path, labels: str | None) -> Columns:
    """A `.npy` file of features, and its labels in another file."""
    x = load_array(path, mmap_mode="r")
    beside = pathlib.Path(labels).expanduser() if labels else _beside(path)
    return Columns(path=path, x=x, label=None if beside is None else label_file(beside))


def _beside(path: pathlib.Path) -> pathlib.Path | None:
    for pattern, by in ((r"(?<![A-Za-z])[xX](?![A-Za-z])", "y"), ("features", "labels")):
        name = re.sub(pattern, by, path.stem)
        for suffix in dict.fromkeys((path.suffix, ".npy", ".txt")):
            there = path.with_name(name + suffix)
            if name != path.stem and there.is_file():
                return there
    return None


def _opened(path: pathlib.Path) -> Any:
    try:
        file = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {short(error)}") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is no .npz file: it holds a single array")
    return file


def _member(file: Any, path: pathlib.Path, name: str) -> np.ndarray:
    try:
        return file[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: array {name!r} cannot be read: {short(error)}") from error


def _mapped_member(path: pathlib.Path, name: str) -> np.ndarray | None:
    """A memory map of an array [N, D] that lies uncompressed in a `.npz` file; None of others."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        entry = archive.getinfo(f"{name}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            return None
        # The local header, whose name and extra field may be longer than those of the directory.
        file.seek(entry.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(entry.header_offset + 30 + int(lengths.sum()))
        try:
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
            shape, fortran, dtype = (header or np.lib.format.read_array_header_2_0)(file)
        except ValueError:
            return None  # reading it the usual way says what is wrong
        if len(shape) != 2 or fortran or dtype.hasobject or 0 in shape:
            return None
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)
