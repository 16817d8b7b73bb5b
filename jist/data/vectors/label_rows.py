"""The labels of rows that may have several: of matrices of 0 and 1, and of lists."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jist.data.errors import DataError
from jist.data.sparse.matrix import SparseTable
from jist.data.vectors.columns import Columns, LabelLists
from jist.ragged import Ragged

_BLOCK_BYTES = 64e6  # of a matrix that is looked at at a time


@dataclasses.dataclass(frozen=True)
class LabelRows:
    """The labels of the rows of some files that belong together.

    Attributes:
        of_files: of every file rows of i32 with padding -1, ascending.
        count: number of labels L.
        names: of the labels, where they are names.
    """

    of_files: tuple[Ragged, ...]
    count: int
    names: tuple[str, ...] = ()


def has_several(label: Any) -> bool:
    """Whether labels of a file are of rows that may have several."""
    matrix = isinstance(label, np.ndarray) and label.ndim == 2
    return matrix or isinstance(label, SparseTable | LabelLists)


def label_rows(parts: Sequence[Columns]) -> LabelRows:
    """The labels of some files, all of which `has_several`.

    A matrix has a column for each label. Lists name labels by numbers from 0 on, of which the
    greatest says how many there are; or by text, and labels are then in the order of their names.

    Raises:
        DataError: a matrix that holds other numbers than 0 and 1, or one column; lists with a
            negative number, an empty name, or a label twice; files of unlike kind, or matrices of
            unlike width. The message names file and row.
    """
    kinds = {_kind(part.label) for part in parts}
    if len(kinds) > 1:
        said = ", ".join(f"{_kind(part.label)} in {part.path}" for part in parts)
        raise DataError(f"labels must be of one kind in all files, got {said}")
    if kinds == {"a matrix"}:
        wide = [_columns(part.label) for part in parts]
        if len({*wide}) > 1:
            raise DataError(f"{parts[0].path} has {wide[0]} labels, {parts[1].path} has {wide[1]}")
        return LabelRows(tuple(_of_matrix(part) for part in parts), wide[0])
    lists = [part.label for part in parts if isinstance(part.label, LabelLists)]
    found = [np.unique(each.values) for each in lists]
    if kinds == {"lists of names"}:
        names = np.unique(np.concatenate(found))
        numbered = [_of_list(p, np.searchsorted(names, _list(p).values)) for p in parts]
        return LabelRows(tuple(numbered), len(names), tuple(map(str, names)))
    count = 1 + max((int(numbers[-1]) for numbers in found if len(numbers)), default=0)
    return LabelRows(tuple(_of_list(part, _list(part).values) for part in parts), count)


def _columns(matrix: Any) -> int:
    return matrix.shape[1]


def _kind(label: Any) -> str:
    if not isinstance(label, LabelLists):
        return "a matrix"
    return "lists of names" if label.values.dtype.kind == "U" else "lists of numbers"


def _list(part: Columns) -> LabelLists:
    assert isinstance(part.label, LabelLists)
    return part.label


def _of_list(part: Columns, numbers: np.ndarray) -> Ragged:
    """Lists as rows, each in the order of its labels."""
    lists = _list(part)
    row = np.repeat(np.arange(len(lists)), lists.lengths)
    for wrong, what in (
        (lists.values == "", "a label is empty")
        if lists.values.dtype.kind == "U"
        else (numbers < 0, "labels must be at least 0"),
        (numbers > np.iinfo(np.int32).max, "labels must be below 2**31"),
    ):
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{part.path}, row {row[at]}: {what}, got {lists.values[at]!r}")
    order = np.lexsort((numbers, row))
    again = (np.diff(row[order]) == 0) & (np.diff(numbers[order]) == 0)
    if again.any():
        at = int(order[np.flatnonzero(again)[0]])
        raise DataError(
            f"{part.path}, row {row[at]}: label {lists.values[at]} stands there twice: a list says "
            "which labels a row has (a matrix of 0 and 1 goes into a .npz file)"
        )
    return Ragged.of(lists.lengths, numbers[order].astype(np.int32), fill=-1)


def _of_matrix(part: Columns) -> Ragged:
    """Where a matrix holds 1."""
    if isinstance(part.label, SparseTable):
        return part.label.labels()
    matrix = part.label
    assert isinstance(matrix, np.ndarray)
    if matrix.shape[1] < 2:
        raise DataError(
            f"{part.path}: labels {list(matrix.shape)} must be [N] classes, or [N, L] of 0 and 1 "
            "with a column for each of at least 2 labels"
        )
    block = max(1, int(_BLOCK_BYTES / matrix.itemsize / matrix.shape[1]))
    counts, columns = [], []
    for first in range(0, len(matrix), block):
        some = np.asarray(matrix[first : first + block])
        wrong = ~((some == 0) | (some == 1))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                f"{part.path}, row {first + row}: label {column} is {some[row, column]}; a matrix "
                "of labels holds 0 and 1"
            )
        counts.append(np.count_nonzero(some, axis=1))
        columns.append(np.nonzero(some)[1].astype(np.int32))
    return Ragged.of(np.concatenate(counts), np.concatenate(columns), fill=-1)
