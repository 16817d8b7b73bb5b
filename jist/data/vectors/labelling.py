"""Labels of any type -> classes 0 … C − 1 and their names."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jist.data.errors import DataError
from jist.data.vectors.columns import Columns, Y, listed


def classes_of(parts: Sequence[Columns]) -> tuple[str, ...]:
    """The names of the classes of some files that belong together.

    Text names a class; the classes are then in the order of their names. Whole numbers are classes
    themselves and must be 0 … C − 1, each of which occurs.

    Raises:
        DataError: labels are missing (NaN, or empty), of another type, of different types in
            different files, or numbers with gaps; the message names file and row.
    """
    for part in parts:
        _check(part)
    named = next((part.class_names for part in parts if part.class_names is not None), None)
    if named is not None:
        return named
    kinds = {_is_text(part) for part in parts}
    if len(kinds) > 1:
        raise DataError(
            "labels must be names in all files or numbers in all, got "
            + ", ".join(f"{_label(part).dtype} in {part.path}" for part in parts)
        )
    found = np.unique(np.concatenate([_comparable(part) for part in parts]))
    if kinds == {True}:
        return tuple(str(name) for name in found)
    gaps = np.flatnonzero(found != np.arange(len(found)))
    if len(gaps):
        part = next(p for p in parts if (_comparable(p) == found[gaps[0]]).any())
        row = int(np.flatnonzero(_comparable(part) == found[gaps[0]])[0])
        raise DataError(
            f"{part.path}, row {row}: label {found[gaps[0]]}, but {gaps[0]} does not occur: "
            "numbers must be 0 … C − 1, each of which occurs; text may be anything"
        )
    return tuple(str(number) for number in found)


def indices(part: Columns, class_names: tuple[str, ...]) -> Int[np.ndarray, " examples"]:
    """The class of every row of a file, i32 [N].

    Raises:
        DataError: a label is none of the classes; the message names file and row.
    """
    if _is_text(part):
        place = {name: index for index, name in enumerate(class_names)}
        found = np.array([place.get(str(name), -1) for name in _label(part)], np.int32)
    else:
        found = _label(part).astype(np.int64)
    unknown = np.flatnonzero((found < 0) | (found >= len(class_names)))
    if len(unknown):
        row = int(unknown[0])
        raise DataError(
            f"{part.path}, row {row}: label {_label(part)[row]!s} is none of the "
            f"{len(class_names)} classes"
        )
    return found.astype(np.int32)


def _check(part: Columns) -> None:
    label = part.label
    if label is None:
        raise DataError(
            f"{part.path} has no labels, called {listed(Y)}, nor a file of them beside it (`y.npy` "
            "beside `x.npy`): name their column, array or file by --labels"
        )
    if not isinstance(label, np.ndarray) or label.ndim > 1:
        raise DataError(
            f"{part.path}: one class of each row is needed here, its rows may have several labels"
        )
    if label.dtype.kind == "f":
        wrong = np.flatnonzero(label != np.floor(label))  # NaN differs from everything
        if len(wrong):
            row = int(wrong[0])
            raise DataError(f"{part.path}, row {row}: label {label[row]} is no whole number")
    elif label.dtype.kind == "U":
        wrong = np.flatnonzero(label == "")
        if len(wrong):
            raise DataError(f"{part.path}, row {int(wrong[0])}: the label is empty")
    elif label.dtype.kind not in "iub":
        raise DataError(f"{part.path}: labels must be whole numbers or text, got {label.dtype} [N]")


def _label(part: Columns) -> np.ndarray:
    assert isinstance(part.label, np.ndarray)  # since it was checked
    return part.label


def _is_text(part: Columns) -> bool:
    return _label(part).dtype.kind == "U"


def _comparable(part: Columns) -> np.ndarray:
    return _label(part) if _is_text(part) else _label(part).astype(np.int64)
