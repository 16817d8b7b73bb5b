"""Features as one file that other programs read: `.npz` or Parquet."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from jist.data import DataError
from jist.features.stored import CHUNK, Features
from jist.staging import replaced

SUFFIXES = (".npz", ".parquet")


def write_table(splits: Mapping[str, Features], path: str | os.PathLike) -> None:
    """Writes features with their labels and splits, one row for each example.

    Columns or arrays: `x` [N, D] float32, `y`, the name of the class, `split`, and `example_id`.
    `--dataset features:FILE` reads the file again.

    Args:
        splits: name of a split -> its features; all of one length D and of the same classes.
        path: the file, ending in one of `SUFFIXES`; replaced whole.

    Raises:
        ValueError: another suffix.
        DataError: Parquet without pyarrow.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    with replaced(path) as file:
        if path.suffix.lower() == ".npz":
            _write_npz(splits, file)
        else:
            _write_parquet(splits, file)


def check_suffix(path: pathlib.Path) -> None:
    """Checks that a table can be written to a path.

    Raises:
        ValueError: it has another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"out must end in {' or '.join(SUFFIXES)}, got {path}")


def _columns(split: str, features: Features) -> dict[str, np.ndarray]:
    names = np.array(features.attributes["class_names"])
    return {
        "y": names[features.label],
        "split": np.full(len(features.label), split),
        "example_id": features.example_id,
    }


def _write_npz(splits: Mapping[str, Features], file: pathlib.Path) -> None:
    parts = [{"x": f.cls, **_columns(split, f)} for split, f in splits.items()]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with file.open("wb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)


def _write_parquet(splits: Mapping[str, Features], file: pathlib.Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("Parquet needs the package pyarrow: pip install -e '.[parquet]'") from error
    dim = next(iter(splits.values())).cls.shape[1]
    x_type = pa.list_(pa.float32(), dim)
    kinds = {"x": x_type, "y": pa.string(), "split": pa.string(), "example_id": pa.uint32()}
    with parquet.ParquetWriter(file, pa.schema(kinds)) as writer:
        for split, features in splits.items():
            columns = _columns(split, features)
            for start in range(0, len(features.label), CHUNK):
                rows = slice(start, start + CHUNK)
                x = pa.FixedSizeListArray.from_arrays(features.cls[rows].ravel(), dim)
                some = {"x": x} | {name: column[rows] for name, column in columns.items()}
                writer.write_table(pa.table(some, schema=pa.schema(kinds)))
