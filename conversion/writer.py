"""Writes tensors one after the other, so that only one is in memory at a time."""

import json
import pathlib
import struct
from collections.abc import Iterator, Mapping

import numpy as np

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}


def blank(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 zeros that takes no memory, to stand for a shape."""
    return np.broadcast_to(np.float32(0), shape)


def write_safetensors(
    path: pathlib.Path,
    blanks: Mapping[str, np.ndarray],
    arrays: Iterator[tuple[str, np.ndarray]],
) -> None:
    """Writes tensors to a safetensors file.

    The library's own writer needs all of them at once: for a ViT-Huge, 2.5 GB beside the source.

    Args:
        path: the file.
        blanks: every tensor's name, and any array of its shape and type, in the order of `arrays`.
        arrays: names and arrays, made one at a time.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in blanks.items():
        start, end = end, end + array.size * array.itemsize
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for (name, array), (expected, like) in zip(arrays, blanks.items(), strict=True):
            assert (name, array.shape, array.dtype) == (expected, like.shape, like.dtype)
            little_endian = array.dtype.newbyteorder("<")
            file.write(np.ascontiguousarray(array, dtype=little_endian).data)
