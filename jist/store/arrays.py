"""Arrays of a group: each chunk is a file that is written whole, then renamed."""

import functools
import itertools
import pathlib
from typing import Any, cast

import numpy as np
import tensorstore as ts

from jist.reasons import reason_of
from jist.store import chunks
from jist.store.groups import StoreError

CACHE_BYTES = 512 * 2**20  # of decoded chunks


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
    Where the description of an array is damaged it is written anew; its chunks are left alone.

    Args:
        path: directory of the group.
        name: the array's.
        dtype: type of its numbers.
        shape: its shape.
        chunk: rows of a chunk.
        compressed: whether chunks are compressed, by Zstandard.
    """
    if (path / name / "zarr.json").exists():
        try:
            return open_array(path, name, dtype=ts.dtype(np.dtype(dtype).name), shape=list(shape))
        except ValueError:
            (path / name / "zarr.json").unlink()
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
        reason, where = reason_of(error), cast(ts.KvStore, rows.kvstore)
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
        raise _damaged(path, name, reason_of(error)) from error


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
            raise self._damaged(reason_of(error)) from error


def check_whole(path: pathlib.Path, name: str) -> None:
    """Checks that an array of a group is there, with every chunk in its place.

    Raises:
        StoreError: the array or a chunk is missing, or a chunk has not the checksum that was noted.
    """
    try:
        array = open_array(path, name)
        layout: Any = array.chunk_layout.write_chunk  # as it was created
    except (ValueError, OSError) as error:
        raise _damaged(path, name, reason_of(error)) from error
    chunk = layout.shape[0]
    found = [chunks.checksum(file) for file in chunks.files(path, name, array, chunk)]
    noted = chunks.noted_checksums(path).get(name, found)
    for rows, there, expected in itertools.zip_longest(
        chunks.ranges(array.shape[0], chunk), found, noted
    ):
        if not there:
            where = f"rows {rows.start} to {rows.stop - 1}" if rows else "some rows"
            raise _damaged(path, name, f"{where} are missing")
        if there != expected:
            which = f"rows {rows.start} to {rows.stop - 1} are not those that were written"
            raise _damaged(path, name, which)


def _damaged(path: pathlib.Path, name: str, reason: str) -> StoreError:
    return StoreError(
        f"{path} is damaged, its array {name!r} cannot be read: {reason}; what wrote it, "
        "started again, writes again what is damaged or missing"
    )
