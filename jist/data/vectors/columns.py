"""What a file of vectors holds, and what is common to reading any format."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Int

from jist.data.errors import DataError
from jist.data.sparse.matrix import SparseTable, load_csr
from jist.reasons import reason_of

# How the arrays or columns of a file may be called; the first one that is there counts.
X = ("x", "X", "features", "embeddings", "embedding", "cls")
Y = ("y", "label", "labels", "class", "target")
SPLIT, KEY = ("split",), ("id", "key")


@dataclasses.dataclass(frozen=True, eq=False)
class LabelLists:
    """The labels of rows that may have several, as lists.

    Attributes:
        lengths: labels of each row [N].
        values: whole numbers or text, those of a row after those of the one before.
    """

    lengths: Int[np.ndarray, " rows"]
    values: np.ndarray

    @property
    def shape(self) -> tuple[int]:
        """Rows."""
        return (len(self.lengths),)

    def __len__(self) -> int:
        return len(self.lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """What a file holds, unchecked but for the shapes.

    Attributes:
        path: the file, for messages.
        x: vectors [N, D] of floats or integers, in memory or mapped; or sparse rows.
        label: [N], of any type; of rows that may have several labels [N, L] numbers or sparse
            rows, which are not 0 where a row has a label, or lists; None where the file names none.
        split: [N], names of splits, if the file has them.
        key: [N], names of the rows, if the file has them.
        class_names: the names of the classes, if the file has them.
    """

    path: pathlib.Path
    x: np.ndarray | SparseTable
    label: np.ndarray | SparseTable | LabelLists | None
    split: np.ndarray | None = None
    key: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        x = self.x
        if isinstance(x, np.ndarray) and (x.ndim != 2 or x.dtype.kind not in "fiub"):
            raise DataError(
                f"{self.path}: features must be numbers [N, D], got {x.dtype} {list(x.shape)}"
            )
        for name in ("label", "split", "key"):
            column = getattr(self, name)
            if column is None:
                continue
            most = 2 if name == "label" else 1
            if column.shape[:1] != self.x.shape[:1] or len(column.shape) > most:
                raise DataError(
                    f"{self.path}: there are {len(self.x)} rows of features, and {name}s "
                    f"{list(column.shape)}; there must be one for each row"
                )


def label_file(path: pathlib.Path) -> np.ndarray | SparseTable:
    """Labels in a file: an array [N] or [N, L], lines of text, or a sparse matrix [N, L]."""
    if not path.is_file():
        raise DataError(f"labels: {path} does not exist")
    if path.suffix.lower() == ".npy":
        return load_array(path)
    if path.suffix.lower() == ".npz":
        return SparseTable(*load_csr(path))
    try:
        return np.array(path.read_text("utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise DataError(f"labels: {path} is no text in UTF-8: {error.reason}") from error


def find_labels(
    labels: str | None,
    column: Callable[[str | None], np.ndarray | LabelLists | None],
    there: tuple[str, ...],
) -> np.ndarray | SparseTable | LabelLists | None:
    """The labels by their name in the file or, if it has no such column, by their file."""
    if labels is not None and labels not in there and os.path.splitext(labels)[1]:
        return label_file(pathlib.Path(labels).expanduser())
    return column(labels)


def find(
    path: pathlib.Path, there: tuple[str, ...], names: tuple[str, ...], wanted: str | None
) -> str | None:
    """The name that is wanted or, without one, the first of some names that is there."""
    if wanted is not None:
        if wanted not in there:
            raise DataError(f"{path} has no labels called {wanted!r}; {has(there)}")
        return wanted
    return next((name for name in names if name in there), None)


def has(there: tuple[str, ...]) -> str:
    """What a file has, for messages."""
    return f"it has {listed(there[:20])}" if there else "it is empty"


def listed(names: Iterable[str]) -> str:
    """Names between commas."""
    return ", ".join(names)


def load_array(path: pathlib.Path, **options: Any) -> np.ndarray:
    """A `.npy` file; `options` are those of `numpy.load`."""
    try:
        array = np.load(path, allow_pickle=False, **options)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {short(error)}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is no .npy file: it holds several arrays")
    return array


def short(error: BaseException) -> str:
    """The text of an error of a library, in one line."""
    return reason_of(error) or type(error).__name__
