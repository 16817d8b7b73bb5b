"""Vectors in a Parquet file: a column of lists, or a column for every feature."""

import pathlib
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
)


def read_parquet(path: pathlib.Path, labels: str | None) -> Columns:
    """The columns of a Parquet file."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: Parquet needs the package pyarrow: pip install -e '.[parquet]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {short(error)}") from error
    there = tuple(table.column_names)

    def column(names: tuple[str, ...], wanted: str | None = None) -> np.ndarray | None:
        name = find(path, there, names, wanted)
        if name is None:
            return None
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise DataError(f"{path}, row {row}: column {name!r} has no value")
        return np.asarray(table[name].to_pylist())

    def label_column(wanted: str | None) -> np.ndarray | LabelLists | None:
        name = find(path, there, Y, wanted)
        if name is None or not _is_list(table.schema.field(name).type):
            return column(Y, wanted)
        return _label_lists(path, name, table[name])

    label = find_labels(labels, label_column, there)
    split, key = column(SPLIT), column(KEY)
    taken = {find(path, there, names, None) for names in (SPLIT, KEY)}
    taken.add(find(path, there, Y, None if labels is None or labels not in there else labels))
    x_name = find(path, there, X, None)
    if x_name is not None and _is_list(table.schema.field(x_name).type):
        x = _rows_of_lists(path, x_name, table[x_name])
    else:
        numeric = [n for n in there if n not in taken and _is_number(table.schema.field(n).type)]
        if not numeric:
            raise DataError(
                f"{path} has neither a column of lists, called {listed(X)}, nor columns of "
                f"numbers; {has(there)}"
            )
        x = np.stack([_numbers(path, n, table[n]) for n in numeric], axis=1)
    return Columns(path=path, x=x, label=label, split=split, key=key)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)


def _numbers(path: pathlib.Path, name: str, column: Any) -> np.ndarray:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}, row {row}: column {name!r} has no value")
    return column.to_numpy().astype(np.float32)


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
    lengths = np.array([len(row) for row in column])
    unlike = np.flatnonzero(lengths != lengths[0]) if len(lengths) else []
    if len(unlike):
        raise DataError(
            f"{path}, row {unlike[0]}: column {name!r} has {lengths[unlike[0]]} numbers, row 0 has "
            f"{lengths[0]}; every row must have as many"
        )
    width = int(lengths[0]) if len(lengths) else 0
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return flat.reshape(len(lengths), width)
