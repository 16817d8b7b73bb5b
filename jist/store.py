"""Arrays on disk, written chunk by chunk to a Zarr v3 group; writing can be resumed at any time.

The attributes of the group, in `zarr.json`, say what it holds; opening it to write something else
is refused. Each chunk of an array is a file that is written whole, then renamed.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import tensorstore as ts

from jist.staging import write_text

CACHE_BYTES = 512 * 2**20  # of decoded chunks


class StoreError(Exception):
    """An array cannot be written, or is missing, incomplete or damaged."""


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed; jist itself may run from a checkout.

    >>> versions("there is no such package")
    {}
    """
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def open_group(
    path: pathlib.Path, attributes: Mapping[str, Any], *, holds: str, free: Collection[str] = ()
) -> None:
    """Makes a group, or checks that the existing one has the same attributes.

    Args:
        path: its directory; made if missing.
        attributes: its attributes.
        holds: what it holds, for the error message.
        free: attributes that may differ.

    Raises:
        ValueError: attributes differ (they are named).
    """
    if not (path / "zarr.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        write_attributes(path, attributes)
        return
    found = read_attributes(path)
    differ = [
        f"{name} is {found.get(name)!r} there and {wanted!r} here"
        for name, wanted in json.loads(json.dumps(attributes)).items()
        if name not in free and found.get(name) != wanted
    ]
    if differ:
        raise ValueError(
            f"out={path} holds other {holds}; choose another directory or remove it: "
            + "; ".join(differ)
        )


def read_attributes(path: str | os.PathLike) -> dict[str, Any]:
    """The attributes of a group.

    Raises:
        StoreError: its `zarr.json` is damaged.
        OSError: it cannot be read.
    """
    file = pathlib.Path(path) / "zarr.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["attributes"])
    except (ValueError, TypeError, KeyError):
        raise StoreError(f'{file} is damaged: no JSON object with "attributes"') from None


def write_attributes(path: pathlib.Path, attributes: Mapping[str, Any]) -> None:
    """Writes the attributes of a group, whole or not at all."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_text(path / "zarr.json", json.dumps(group, indent=2) + "\n")


def open_array(path: pathlib.Path, name: str, **options: Any) -> ts.TensorStore:
    """An array of a group, to read.

    Args:
        path: directory of the group.
        name: the array's.
        **options: of `tensorstore.open`.
    """
    # Not `absolute`, which leaves `..` in a path: tensorstore refuses that.
    kvstore = {"driver": "file", "path": str((path / name).resolve())}
    # A chunk of zeros is written too: its file marks the chunk as done.
    spec = {"driver": "zarr3", "kvstore": kvstore, "store_data_equal_to_fill_value": True}
    return ts.open(spec, open=True, **options).result()


def create_array(
    path: pathlib.Path,
    name: str,
    dtype: np.dtype | type,
    shape: tuple[int, ...],
    *,
    chunk: int,
    compressed: bool = False,
) -> ts.TensorStore:
    """An array of a group, to write; made if missing, with a checksum of every chunk.

    An altered chunk is found when it is read. Arrays from before there were checksums stay without.

    Args:
        path: directory of the group.
        name: the array's.
        dtype: type of its numbers.
        shape: its shape.
        chunk: rows of a chunk.
        compressed: whether chunks are compressed, by Zstandard.
    """
    if (path / name / "zarr.json").exists():
        return open_array(path, name, dtype=ts.dtype(np.dtype(dtype).name), shape=list(shape))
    names = ["bytes", *(["zstd"] if compressed else []), "crc32c"]
    codec = {"driver": "zarr3", "codecs": [{"name": name} for name in names]}
    return open_array(
        path,
        name,
        create=True,
        dtype=ts.dtype(np.dtype(dtype).name),
        shape=list(shape),
        chunk_layout=ts.ChunkLayout(chunk_shape=[chunk, *shape[1:]]),
        codec=ts.CodecSpec(codec),
    )


def write(rows: ts.TensorStore, values: np.ndarray) -> None:
    """Writes rows of an array, and waits for it.

    Args:
        rows: the rows to write, a part of an array of `create_array`.
        values: as many rows; converted to the type of the array.

    Raises:
        StoreError: they cannot be written: the disk is full, the directory is gone.
    """
    try:
        rows.write(values.astype(rows.dtype.numpy_dtype, copy=False)).result()
    except (ValueError, OSError) as error:
        reason, where = " ".join(str(error).split())[:300], cast(ts.KvStore, rows.kvstore)
        raise StoreError(f"cannot write to {where.path}: {reason}") from error


def read(path: pathlib.Path, name: str) -> np.ndarray:
    """All of an array of a group.

    Args:
        path: directory of the group.
        name: the array's.

    Raises:
        StoreError: the array or a chunk of it is missing, which tensorstore would read as zeros, or
            cannot be decoded.
    """
    check_whole(path, name)
    try:
        return np.asarray(open_array(path, name).read().result())
    except (ValueError, OSError) as error:
        raise _damaged(path, name, " ".join(str(error).split())[:300]) from error


class StoredRows:
    """An array [M, ...] of a group whose rows are read when they are used.

    Args:
        path: directory of the group.
        name: the array's.

    Raises:
        StoreError: the array or a chunk of it is missing.
    """

    def __init__(self, path: pathlib.Path, name: str):
        check_whole(path, name)
        # Chunks that were decoded are kept: neighbours are wanted soon after each other.
        cache = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
        self._array = open_array(path, name, context=cache)
        self._damaged = functools.partial(_damaged, path, name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return tuple(self._array.shape)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Reads some rows.

        Raises:
            StoreError: they cannot be decoded.
        """
        try:
            return np.asarray(self._array[rows].read().result())
        except (ValueError, OSError) as error:
            raise self._damaged(" ".join(str(error).split())[:300]) from error


def check_whole(path: pathlib.Path, name: str) -> None:
    """Checks that an array of a group and all its chunks are there.

    Raises:
        StoreError: the array or a chunk is missing.
    """
    try:
        array = open_array(path, name)
        layout: Any = array.chunk_layout.write_chunk  # as it was created
    except (ValueError, OSError) as error:
        raise _damaged(path, name, " ".join(str(error).split())[:300]) from error
    missing = chunks_to_do(path, name, array, layout.shape[0])
    if missing:
        raise _damaged(path, name, f"rows {missing[0].start} to {missing[0].stop - 1} are missing")


def _damaged(path: pathlib.Path, name: str, reason: str) -> StoreError:
    return StoreError(
        f"{path} is damaged, its array {name!r} cannot be read: {reason}; what wrote it writes "
        "again what is missing: remove a file that is named here, or the directory"
    )


def incomplete_chunks(
    path: pathlib.Path, arrays: Mapping[str, ts.TensorStore], chunk: int
) -> list[range]:
    """The chunks of some arrays of which any has no file yet, as ranges of their rows."""
    found = {
        rows.start: rows
        for name, array in arrays.items()
        for rows in chunks_to_do(path, name, array, chunk)
    }
    return [found[start] for start in sorted(found)]


def chunks_to_do(path: pathlib.Path, name: str, array: ts.TensorStore, chunk: int) -> list[range]:
    """The chunks of an array that have no file yet, as ranges of its rows.

    Args:
        path: directory of the group.
        name: the array's.
        array: as `create_array` gives it.
        chunk: rows of a chunk.
    """
    rows, *others = array.shape
    chunks = [range(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]
    files = pathlib.Path(path, name, "c")
    return [
        found
        for number, found in enumerate(chunks)
        if not files.joinpath(str(number), *["0"] * len(others)).exists()
    ]
