"""Chunks of a stored array: which are there, and which are what was written.

Every chunk is a file that ends with the crc32c of what stands before it, so a chunk that was
altered cannot be decoded. The checksums of all chunks, in their order, are noted beside the array:
a whole chunk of another place or of another array has another one, and reading four bytes shows it.
"""

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorstore as ts

from jist.store.groups import StoreError, read_attributes, write_attributes

CHECKSUMS = "checksums"  # the attribute with those of all chunks, of each array in their order
OF_WHOLE_GROUPS = (CHECKSUMS, "skipped")  # attributes; who reads asks for the latter
CHECKSUM_BYTES = 4
AT_ONCE = 8  # chunks that are decoded at a time


def ranges(rows: int, chunk: int) -> list[range]:
    """The rows of every chunk.

    >>> ranges(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]


def files(path: pathlib.Path, name: str, array: ts.TensorStore, chunk: int) -> list[pathlib.Path]:
    """The files of the chunks of an array, whether they are there or not.

    Args:
        path: directory of the group.
        name: the array's.
        array: its chunks lie along its first axis.
        chunk: rows of a chunk.
    """
    rows, *others = array.shape
    inner = ["0"] * len(others)
    count = len(ranges(rows, chunk))
    return [pathlib.Path(path, name, "c", str(number), *inner) for number in range(count)]


def checksum(file: pathlib.Path) -> str:
    """The checksum that a chunk carries, in hexadecimal; empty if there is no such file."""
    try:
        with file.open("rb") as opened:
            opened.seek(-CHECKSUM_BYTES, os.SEEK_END)
            return opened.read().hex()
    except FileNotFoundError:
        return ""
    except OSError:  # fewer bytes than that, or they cannot be read
        return "none"


def undecodable(array: ts.TensorStore, chunk: int) -> Iterator[int]:
    """Numbers of the chunks of an array that cannot be decoded, found by decoding all."""
    parts = ranges(array.shape[0], chunk)
    for start in range(0, len(parts), AT_ONCE):
        some = parts[start : start + AT_ONCE]
        reads = [array[part.start : part.stop].read() for part in some]
        for number, read in enumerate(reads, start):
            try:
                read.result()
            except (ValueError, OSError):
                yield number


def chunks_to_write(
    path: pathlib.Path,
    arrays: Mapping[str, ts.TensorStore],
    chunk: int,
    say: Callable[[str], object] | None = None,
) -> list[range]:
    """The chunks of which any array has no file yet; files that are not what was written go before.

    All that is there is decoded once. A finished group with chunks to write is no longer finished.

    Args:
        path: directory of the group.
        arrays: as `create_array` gives them.
        chunk: rows of a chunk.
        say: is given a line if something was written before and is altered or missing now.

    Returns:
        The rows of each of these chunks.

    Raises:
        OSError: a file cannot be removed.
    """
    noted, todo, damaged = noted_checksums(path), set[int](), set[pathlib.Path]()
    for name, array in arrays.items():
        paths = files(path, name, array, chunk)
        found = [checksum(file) for file in paths]
        expected = noted.get(name, found)
        bad = {number for number, there in enumerate(found) if [there] != expected[number:][:1]}
        # A chunk without a file is read as zeros, which can always be decoded.
        bad |= set(undecodable(array, chunk))
        damaged |= {paths[number] for number in bad}
        todo |= bad | {number for number, there in enumerate(found) if not there}
    rows = ranges(next(iter(arrays.values())).shape[0], chunk)
    if damaged and say is not None:
        more = f", as are {len(damaged) - 1} more files" if len(damaged) > 1 else ""
        again = sum(len(rows[number]) for number in todo)
        say(f"{min(damaged)} is missing or altered{more}: {again} examples are computed again")
    for file in sorted(damaged):
        file.unlink(missing_ok=True)
    if todo:
        attributes = read_attributes(path)
        left = {name: value for name, value in attributes.items() if name not in OF_WHOLE_GROUPS}
        write_attributes(path, left)
    return [rows[number] for number in sorted(todo)]


def finish_group(
    path: pathlib.Path,
    attributes: Mapping[str, Any],
    arrays: Mapping[str, ts.TensorStore],
    chunk: int,
) -> None:
    """Writes the attributes of a group that is whole, with the checksums of all its chunks.

    A group that was finished before checksums were noted is left as it is.

    Args:
        path: directory of the group.
        attributes: its attributes.
        arrays: all its arrays.
        chunk: rows of a chunk.
    """
    before, after = read_attributes(path), json.loads(json.dumps(attributes))
    if CHECKSUMS in before or after != before:
        after[CHECKSUMS] = {
            name: " ".join(map(checksum, files(path, name, array, chunk)))
            for name, array in arrays.items()
        }
    write_attributes(path, after)


def noted_checksums(path: pathlib.Path) -> dict[str, list[str]]:
    """The checksums of the chunks of each array that were noted: none before a group is whole."""
    try:
        noted = dict(read_attributes(path).get(CHECKSUMS, {}))
        return {name: str(checksums).split() for name, checksums in noted.items()}
    except (OSError, TypeError, ValueError, StoreError):
        return {}
