"""What a file of vectors holds, and what is common to reading any format."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
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
        names: of the features [D], where each has a column of its own.
        remarks: what its owner should know of how the file was read, in lines.

    Raises:
        DataError: other features than numbers [N, D]; labels, splits or keys of another number of
            rows.
    """

    path: pathlib.Path
    x: np.ndarray | SparseTable
    label: np.ndarray | SparseTable | LabelLists | None
    split: np.ndarray | None = None
    key: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()

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


def check_keys(part: Columns) -> None:
    """Refuses keys that do not tell rows apart.

    Splits and masks follow from keys: rows that share one would share these, too. In a store keys
    are hashes, two of which may be equal.

    Raises:
        DataError: two rows have the same key; the first of such is named.
    """
    if part.key is None or part.path.is_dir():
        return
    written = part.key.astype(str)
    order = np.argsort(written, kind="stable")
    again = order[1:][written[order[1:]] == written[order[:-1]]]
    if len(again):
        row = int(again.min())
        first, name = int((written == written[row]).argmax()), str(written[row])
        raise DataError(
            f"{part.path}: rows {first} and {row} have the same {' or '.join(KEY)}, {name!r}; "
            "every row needs one of its own (rows without are numbered)"
        )


def in_order_of(part: Columns, names: tuple[str, ...] | None, origin: object) -> Columns:
    """A file with its features in the order of others; as it is where either has no names.

    Args:
        part: the file.
        names: of the other features.
        origin: where those are, for messages.

    Raises:
        DataError: the features are called otherwise.
    """
    if names is None or part.names is None or part.names == names:
        return part
    here, there = set(part.names), set(names)
    if here != there:
        lacking = [name for name in names if name not in here]
        more = [name for name in part.names if name not in there]
        said = [f"{what} {some(of)}" for what, of in (("lacks", lacking), ("adds", more)) if of]
        raise DataError(f"{part.path} has other features than {origin}: it {' and '.join(said)}")
    place = {name: column for column, name in enumerate(part.names)}
    assert isinstance(part.x, np.ndarray)  # sparse rows have no names
    x = part.x[:, [place[name] for name in names]]
    return dataclasses.replace(part, x=x, names=names)


def some(names: Sequence[str]) -> str:
    """Names between commas, the first few of many."""
    return listed(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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
