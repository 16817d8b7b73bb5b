"""Vectors in a Parquet file: a column of lists, or a column for every feature."""

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from jist.data.errors import DataError
from jist.data.vectors.columns import (
    KEY,
    SPLIT,
    Columns,
    LabelLists,
    X,
    Y,
    find,
    find_labels,
    has,
    listed,
    short,
    some,
)
from jist.data.vectors.table_rows import not_finite

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # as pandas stores it


@dataclasses.dataclass(frozen=True)
class _Features:
    """Vectors [N, D], the names of the features, and remarks on what is none of them."""

    x: np.ndarray
    names: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()


def read_parquet(path: pathlib.Path, labels: str | None) -> Columns:
    """The columns of a Parquet file.

    Features are the lists of a column that is called like features, else all columns of numbers
    but for labels, splits and keys, whatever is called like these, and what was an index in pandas.

    Raises:
        DataError: it cannot be read, or holds no features; a value is missing, or no float32; a
            column has lists of unlike lengths; columns are features and several are called like
            labels, none of which is chosen.
    """
    table = _table(path)
    there = tuple(table.column_names)

    def column(names: tuple[str, ...], wanted: str | None = None) -> np.ndarray | None:
        name = find(path, there, names, wanted)
        if name is None:
            return None
        _check_there(path, name, table[name])
        return np.asarray(table[name].to_pylist())

    def label_column(wanted: str | None) -> np.ndarray | LabelLists | None:
        name = find(path, there, Y, wanted)
        if name is None:
            return None
        if _is_list(table.schema.field(name).type):
            return _label_lists(path, name, table[name])
        if _is_decimal(table.schema.field(name).type):
            return _numbers(path, name, table[name])
        return column(Y, wanted)

    like_labels = [name for name in Y if name in there]
    if labels is None and len(like_labels) > 1 and _lists(table) is None:
        raise DataError(
            f"{path} has several columns that are called like labels: {listed(like_labels)}; "
            "--labels chooses one"
        )
    label = find_labels(labels, label_column, there)
    features = _features(path, table, labels)
    return Columns(
        path=path,
        x=features.x,
        label=label,
        split=column(SPLIT),
        key=column(KEY),
        names=features.names,
        remarks=features.remarks,
    )


def read_parquet_features(path: pathlib.Path, labels: str | None) -> Columns:
    """The features of a Parquet file alone.

    Args:
        path: the file.
        labels: a column that is none of them, if it is there.

    Raises:
        DataError: as `read_parquet`, of features.
    """
    features = _features(path, _table(path), labels)
    return Columns(path=path, x=features.x, label=None, names=features.names)


def _table(path: pathlib.Path) -> Any:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: Parquet needs the package pyarrow: pip install -e '.[parquet]'"
        ) from error
    try:
        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {short(error)}") from error


def _features(path: pathlib.Path, table: Any, labels: str | None) -> _Features:
    """The features, given the name of a column that is none, if it is there."""
    x_name = _lists(table)
    if x_name is not None:
        return _Features(_rows_of_lists(path, x_name, table[x_name]))
    names, index = tuple(table.column_names), _index_of(table)
    kinds = {name: table.schema.field(name).type for name in names}
    known = {find(path, names, of, None) for of in (SPLIT, KEY)}
    if labels is None or labels in names:  # else they lie elsewhere
        known.add(find(path, names, Y, labels))
    # What is called like labels would give them away, whichever column is the label.
    like = {*Y, *SPLIT, *KEY} - index
    numeric = [n for n in names if n not in known | like | index and _is_number(kinds[n])]
    if not numeric:
        raise DataError(
            f"{path} has neither a column of lists, called {listed(X)}, nor columns of numbers; "
            f"{has(names)}"
        )
    others = [n for n in names if n not in known | {*numeric} and not _UNNAMED_INDEX.fullmatch(n)]
    left_out = {
        "the index in pandas": [n for n in others if n in index],
        "called like labels, splits or keys": [n for n in others if n in like],
        "no numbers": [n for n in others if n not in index | like],
    }
    said = "; ".join(f"{some(of)} ({why})" for why, of in left_out.items() if of)
    remarks = (f"{path}: left out of the features: {said}",) if said else ()
    x = np.stack([_numbers(path, n, table[n], np.float32) for n in numeric], axis=1)
    return _Features(x, tuple(numeric), remarks)


def _lists(table: Any) -> str | None:
    """The column that holds vectors as lists, if there is one."""
    name = next((name for name in X if name in table.column_names), None)
    return name if name is not None and _is_list(table.schema.field(name).type) else None


def _index_of(table: Any) -> set[str]:
    """The columns that were an index in pandas: they number or name the rows."""
    try:
        noted = (table.schema.pandas_metadata or {}).get("index_columns", [])
    except ValueError:  # damaged; the names are left
        noted = []
    unnamed = [name for name in table.column_names if _UNNAMED_INDEX.fullmatch(name)]
    return {*unnamed, *(name for name in noted if isinstance(name, str))}  # a range is a dict


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow.types as types

    whole = types.is_integer(kind) or types.is_boolean(kind)
    return whole or types.is_floating(kind) or _is_decimal(kind)


def _is_decimal(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_decimal(kind)


def _check_there(path: pathlib.Path, name: str, column: Any) -> None:
    """Refuses a column that lacks a value."""
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}, row {row}: column {name!r} has no value")


def _as_floats(column: Any) -> Any:
    """Decimals as float64, which NumPy knows; other columns as they are."""
    import pyarrow as pa

    return column.cast(pa.float64()) if _is_decimal(column.type) else column


def _numbers(path: pathlib.Path, name: str, column: Any, dtype: Any = np.float64) -> np.ndarray:
    """A column of numbers [N].

    Raises:
        DataError: a value is missing, or not finite in float32.
    """
    _check_there(path, name, column)
    values = _as_floats(column).to_numpy()
    wrong = not_finite(values)
    if wrong is not None:
        (row,), said = wrong
        raise DataError(f"{path}, row {row}: column {name!r} is {said}")
    return values.astype(dtype)


def _label_lists(path: pathlib.Path, name: str, column: Any) -> LabelLists:
    """A column of lists of any length, of whole numbers or of text."""
    import pyarrow.types as types

    kind = column.type.value_type
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)
    if not types.is_integer(kind) and not text:
        raise DataError(
            f"{path}: lists of labels must hold whole numbers or text, column {name!r} has {kind}"
        )
    rows = column.to_pylist()
    lacking = [row is None or None in row for row in rows]
    if any(lacking):
        raise DataError(f"{path}, row {lacking.index(True)}: column {name!r} lacks a value")
    values = np.array([value for row in rows for value in row], np.str_ if text else np.int64)
    return LabelLists(np.array([len(row) for row in rows], np.int64), values)


def _rows_of_lists(path: pathlib.Path, name: str, column: Any) -> np.ndarray:
    """A column of equally long lists as an array [N, D]."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    _check_there(path, name, column)
    if types.is_fixed_size_list(column.type):
        lengths = np.full(len(column), column.type.list_size)
    else:
        lengths = pc.call_function("list_value_length", [column]).to_numpy()
    unlike = np.flatnonzero(lengths != lengths[0]) if len(lengths) else []
    if len(unlike):
        raise DataError(
            f"{path}, row {unlike[0]}: column {name!r} has {lengths[unlike[0]]} numbers, row 0 has "
            f"{lengths[0]}; every row must have as many"
        )
    width = int(lengths[0]) if len(lengths) else 0
    parts = [_as_floats(chunk.flatten()).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return flat.reshape(len(lengths), width)
