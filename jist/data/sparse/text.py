"""Sparse rows as text: `index:value index:value`, in some files with labels before them.

A file is read in blocks of lines, so that what is resident is the arrays and one block. A block is
parsed as a whole; only one that does not fit is read line by line, to say which line is wrong.
"""

import gzip
import io
import pathlib
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from jist.data.errors import DataError
from jist.ragged import Ragged

BLOCK_BYTES = 1 << 16
LONGEST_HEADER = 200  # bytes: what is longer is none
_NOT_SEPARATORS = bytes(set(range(256)) - set(b": "))
_INDEX = re.compile(rb"\d+")
_LARGEST = float(np.finfo(np.float32).max)


def find(path: pathlib.Path) -> pathlib.Path | None:
    """The file at a path, or the compressed one beside it; None where there is neither."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def read_header(path: pathlib.Path, names: Sequence[str]) -> list[int]:
    """The numbers in the first line of a file, and what they count.

    Raises:
        DataError: they are not as many whole numbers as names.
    """
    with _open(path) as file:
        line = _first_line(path, file)
    fields = line.split()
    if len(fields) != len(names) or not all(map(_INDEX.fullmatch, fields)):
        raise DataError(
            f"{path}, line 1: expected the numbers of {', '.join(names)}, got {_shown(line)}"
        )
    return [int(field) for field in fields]


def read_rows(
    path: pathlib.Path, rows: int, widths: Sequence[int], *, labelled: bool
) -> tuple[Ragged, Ragged]:
    """The rows behind the header.

    Args:
        path: the file, compressed if it ends in `.gz`.
        rows: how many rows there are by the header.
        widths: features, and labels if there are any: indices are smaller than these.
        labelled: whether labels stand before the features.

    Returns:
        Features, {"indices": i32, "values": f32}, and labels, i32 with padding -1; none of the
        latter if they are not in the file.

    Raises:
        DataError: there are more rows or fewer, a line cannot be read, an index is out of range or
            stands twice in a row, or a value is not finite. The message names the line.
    """
    columns = tuple([part] for part in _parse([], widths, labelled))
    line = 1
    for lines in _blocks(path):
        here = lines[: max(rows - (line - 1), 0)]
        for number, further in enumerate(lines[len(here) :], start=line + len(here) + 1):
            if further.strip():
                raise DataError(
                    f"{path}, line {number}: an example more than the {rows} that the header says"
                )
        try:
            parsed = _parse(here, widths, labelled)
        except _MalformedError as error:
            _explain(path, here, line + 1, widths, labelled)
            last = line + len(here)
            raise DataError(f"{path}, lines {line + 1} to {last}: {error}") from None
        for column, part in zip(columns, parsed, strict=True):
            column.append(part)
        line += len(here)
    if line - 1 < rows:
        raise DataError(f"{path} ends after {line - 1} examples; its header says {rows}")
    sizes, indices, values, counts, labels = map(_joined, columns)
    features = Ragged.of(sizes, {"indices": indices, "values": values})
    return features, Ragged.of(counts, labels, fill=-1)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of many, which are given up: both are there for one column at a time only."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


class _MalformedError(Exception):
    """Why a line, or a block of lines, cannot be read."""


def _open(path: pathlib.Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.GzipFile(path) if path.suffix == ".gz" else open(path, "rb")


def _first_line(path: pathlib.Path, file: io.BufferedReader | gzip.GzipFile) -> bytes:
    try:
        return file.readline(LONGEST_HEADER)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _blocks(path: pathlib.Path) -> Iterator[list[bytes]]:
    """The lines behind the header, some at a time."""
    with _open(path) as file:
        _first_line(path, file)
        while True:
            try:
                lines = file.readlines(BLOCK_BYTES)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path} cannot be read: {error}") from None
            if not lines:
                return
            yield lines


def _parse(lines: list[bytes], widths: Sequence[int], labelled: bool) -> tuple[np.ndarray, ...]:
    """Sizes, indices and values of some rows, and how many labels they have, and which."""
    rows = [b" ".join(line.split()) for line in lines]
    labels: list[bytes] = []
    if labelled:
        parts = [_parted(row) for row in rows]
        labels, rows = [part[0] for part in parts], [part[1] for part in parts]
    sizes = np.array([row.count(b":") for row in rows], np.int64)
    text = b" ".join(row for row in rows if row)
    total = int(sizes.sum())
    if (
        text.translate(None, _NOT_SEPARATORS) != (b": " * total)[:-1]
        or any(bad in text for bad in (b" :", b": "))
        or text[:1] == b":"
        or text[-1:] == b":"
    ):
        raise _MalformedError("expected features as index:value")
    numbers = _numbers(text.replace(b":", b" "), " ", 2 * total).reshape(total, 2)
    if not (np.abs(numbers[:, 1]) <= _LARGEST).all():  # neither is NaN
        raise _MalformedError("a value is not finite")
    indices = _indices(numbers[:, 0], sizes, widths[0], "feature")
    values = numbers[:, 1].astype(np.float32)
    counts = np.array([label.count(b",") + 1 if label else 0 for label in labels], np.int64)
    text = b",".join(label for label in labels if label)
    found = _numbers(text, ",", int(counts.sum()))
    found = _indices(found, counts, widths[1] if labelled else 0, "label")
    return sizes, indices, values, counts, found


def _parted(row: bytes) -> tuple[bytes, bytes]:
    """The labels of a row, and its features; a row without labels begins with a feature."""
    first, _, rest = row.partition(b" ")
    return (b"", row) if b":" in first else (first, rest)


def _numbers(text: bytes, separator: str, expected: int) -> np.ndarray:
    if not text:
        return np.zeros(0)
    with warnings.catch_warnings():  # of NumPy's earlier versions, which raised no error
        warnings.simplefilter("error", DeprecationWarning)
        try:
            numbers = np.fromstring(text.decode("latin-1"), sep=separator)
        except (ValueError, DeprecationWarning):
            raise _MalformedError("what should be a number is none") from None
    if len(numbers) != expected:
        raise _MalformedError("what should be a number is none")
    return numbers


def _indices(numbers: np.ndarray, lengths: np.ndarray, width: int, what: str) -> np.ndarray:
    if not ((numbers >= 0) & (numbers < width)).all():
        raise _MalformedError(f"a {what} is not in [0, {width})")
    indices = numbers.astype(np.int32)
    if not (indices == numbers).all():
        raise _MalformedError(f"a {what} is no whole number")
    # Rows one after the other: in a sorted row without repetition every step goes up.
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = row * width + indices
    if not (np.diff(place) > 0).all() and len(np.unique(place)) < len(place):
        raise _MalformedError(f"a {what} stands twice in a row")
    return indices


def _explain(
    path: pathlib.Path, lines: list[bytes], first: int, widths: Sequence[int], labelled: bool
) -> None:
    """Raises for the first line that cannot be read by itself."""
    for number, line in enumerate(lines, start=first):
        try:
            _parse([line], widths, labelled)
        except _MalformedError:
            reason = _reason(b" ".join(line.split()), widths, labelled)
            raise DataError(f"{path}, line {number}: {reason}") from None


def _reason(row: bytes, widths: Sequence[int], labelled: bool) -> str:
    """What is wrong with a row."""
    labels, features = _parted(row) if labelled else (b"", row)
    for what, width, fields in (
        ("label", widths[-1], labels.split(b",") if labels else []),
        ("feature", widths[0], features.split()),
    ):
        seen = set()
        for field in fields:
            index, colon, value = field.partition(b":")
            if what == "feature" and not (colon and _is_number(value)):
                return f"expected a feature as index:value, got {_shown(field)}"
            if not _INDEX.fullmatch(index):
                return f"a {what} must be a whole number, got {_shown(index)}"
            if int(index) >= width:
                return f"{what} {int(index)} is not in [0, {width}), which the header says"
            if what == "feature" and not abs(float(value)) <= _LARGEST:
                return f"the value of feature {int(index)} is not finite: {_shown(value)}"
            if int(index) in seen:
                return f"{what} {int(index)} stands there twice"
            seen.add(int(index))
    return f"cannot be read: {_shown(row)}"


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(text: bytes) -> str:
    text = text.strip()
    return repr((text if len(text) <= 60 else text[:57] + b"...").decode("ascii", "replace"))
