"""Vectors with classes, and which of them are for testing."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from jist.data.dataset import Examples
from jist.data.errors import DataError
from jist.data.holdout import held_out
from jist.data.sparse.matrix import SparseTable
from jist.data.vectors.columns import Columns, check_keys, in_order_of
from jist.data.vectors.label_rows import has_several
from jist.data.vectors.labelling import classes_of, indices
from jist.data.vectors.numpy_files import read_npz, splits_of_npz
from jist.data.vectors.reading import SUFFIXES, read_columns
from jist.data.vectors.table_rows import TableRows

SPLITS = ("train", "test")
WITH_VALIDATION = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vectors(TableRows, Examples):
    """Vectors of one split, dense or sparse. Keys are the file's, or numbers of its rows."""

    def describe(self) -> dict[str, Any]:
        """As of other examples; and the digest of the vectors."""
        return super().describe() | {"features_sha256": self.sha256}

    def locate(self, index: int) -> str:
        """File and row."""
        return f"{self.path}, row {self.rows[index]}"


def load_vectors(
    path: str | os.PathLike,
    split: str,
    *,
    labels: str | None = None,
    seed: int = 0,
    test_share: float = 0.2,
) -> Vectors:
    """One split of somebody's own vectors.

    The split is, in this order: two paths with a comma between them, of training and of test
    vectors; a directory with `train` and `test` (`train.npz`, `train.parquet`, the Zarr store
    `train`, or `x_train.npy` and `y_train.npy`); arrays `x_train`, `y_train`, `x_test`, `y_test` of
    a `.npz` file; a column or array `split` of "train" and "test" and, where they are wanted,
    "validation"; else a share of every class, drawn from the seed and the rows' keys.

    Args:
        path: a file as `jist.data.vectors.reading.read_columns` takes it, or as above.
        split: "train", "test" or, if it is among `splits_in`, "validation".
        labels: the column, array or file of the labels, if they have no usual name.
        seed: decides the split of a file that brings none.
        test_share: share of every class held out for testing there.

    Raises:
        ValueError: no such split, or a share outside (0, 1).
        DataError: the files cannot be used; the message says which and why.
    """
    if split not in WITH_VALIDATION:
        raise ValueError(f"split must be one of {WITH_VALIDATION}, got {split!r}")
    how = {"seed": seed, "test_share": test_share}
    files = read_files(os.fspath(path), labels)
    return vectors_of(files, f"features:{os.fspath(path)}", split, **how)


def vectors_of(
    files: list[Columns], name: str, split: str, *, seed: int = 0, test_share: float = 0.2
) -> Vectors:
    """As `load_vectors`, of files that have been opened, under a name."""
    names = classes_of(files)
    part = of_split(files, split)
    found = indices(part, names)
    rows = rows_of(files, split, found, names, seed=seed, test_share=test_share)
    keys = _keys(part)
    return Vectors(
        name=name,
        split=split,
        class_names=names,
        keys=tuple(keys[row] for row in rows),
        labels=found[rows],
        remarks=tuple(remark for file in files for remark in file.remarks),
        path=part.path,
        rows=rows,
        table=part.x,
    )


def rows_of(
    files: list[Columns],
    split: str,
    labels: Int[np.ndarray, " examples"],
    class_names: tuple[str, ...],
    *,
    seed: int,
    test_share: float,
) -> Int[np.ndarray, " some"]:
    """Which rows of its file a split has, ascending.

    Args:
        files: as of `read_files`.
        split: "train", "test" or "validation".
        labels: the classes of the rows of its file, of which a seeded split takes equal shares.
        class_names: their names.
        seed: as of `load_vectors`.
        test_share: as of `load_vectors`.

    Raises:
        DataError: there are none, or the file's own split is no such.
    """
    part = of_split(files, split)
    if len(files) == 2:
        rows = np.arange(len(part.x))
    elif part.split is not None:
        rows = np.flatnonzero(_split_of_rows(part) == split)
    else:
        test = held_out(_keys(part), labels, class_names, share=test_share, seed=seed)
        rows = np.flatnonzero(test if split == "test" else ~test)
    if not len(rows):
        raise DataError(f"{part.path} holds no vectors to {split}")
    return rows


def read_files(path: str, labels: str | None, base: str | os.PathLike = "") -> list[Columns]:
    """The one file of a path, or those of the training and of the test vectors.

    Test vectors whose features have names come in the order of the training vectors'.

    Args:
        path: as of `load_vectors`.
        labels: likewise.
        base: where relative paths begin, in place of the working directory.

    Raises:
        DataError: the files cannot be used, or are of unlike width or kind, or their features are
            called otherwise; two rows of one have the same key.
    """
    if labels is not None and os.path.splitext(labels)[1]:
        there = base / pathlib.Path(labels).expanduser()
        labels = str(there) if there.is_file() else labels
    files = _files(path, labels, base)
    for part in files:
        check_keys(part)
    files = [in_order_of(part, files[0].names, files[0].path) for part in files]
    wide = [part.x.shape[1] for part in files]
    if len({*wide}) > 1:
        raise DataError(
            f"{files[0].path} has {wide[0]} features in a row, {files[1].path} has {wide[1]}"
        )
    for both, what in (
        ([isinstance(part.x, SparseTable) for part in files], "sparse features"),
        ([has_several(part.label) for part in files], "several labels of a row"),
    ):
        if len({*both}) > 1:
            raise DataError(
                f"{files[0].path} and {files[1].path} must both hold {what}, or neither"
            )
    return files


def _files(path: str, labels: str | None, base: str | os.PathLike) -> list[Columns]:
    if not path:
        raise DataError("features:PATH needs the path of a file or directory")
    whole = base / pathlib.Path(path).expanduser()
    if "," in path and not whole.exists():
        parts = [base / pathlib.Path(part).expanduser() for part in path.split(",")]
        if len(parts) != 2:
            raise DataError(f"features:{path}: expected TRAIN,TEST, got {len(parts)} paths")
        return [read_columns(part, labels) for part in parts]
    if whole.is_dir() and not (whole / "zarr.json").is_file():
        return [read_columns(_of_split(whole, split), labels) for split in SPLITS]
    if whole.suffix.lower() == ".npz" and whole.is_file() and splits_of_npz(whole):
        return [read_npz(whole, labels, f"_{split}") for split in SPLITS]
    return [read_columns(whole, labels)]


def _of_split(directory: pathlib.Path, split: str) -> pathlib.Path:
    names = [split, *(f"{split}{suffix}" for suffix in sorted(SUFFIXES))]
    names += [f"{x}_{split}{suffix}" for x in ("x", "X") for suffix in (".npy", ".npz")]
    found = [directory / name for name in names if (directory / name).exists()]
    if len(found) != 1:
        raise DataError(
            f"{directory} must hold one of {', '.join(names)}, it holds "
            + (", ".join(path.name for path in found) or "none")
        )
    return found[0]


def splits_in(files: list[Columns]) -> tuple[str, ...]:
    """The splits that files hold: "train", "test" and, where a column names it, "validation".

    Raises:
        DataError: a column names another split.
    """
    if len(files) == 2 or files[0].split is None:
        return SPLITS
    return WITH_VALIDATION if (_split_of_rows(files[0]) == "validation").any() else SPLITS


def of_split(files: list[Columns], split: str) -> Columns:
    """The file that holds a split.

    Raises:
        ValueError: there is no such split.
    """
    if split not in splits_in(files):
        raise ValueError(f"{files[0].path} has no {split} split")
    return files[SPLITS.index(split)] if len(files) == 2 else files[0]


def _split_of_rows(part: Columns) -> np.ndarray:
    assert part.split is not None
    names = np.char.lower(part.split.astype(str))
    wrong = np.flatnonzero(~np.isin(names, WITH_VALIDATION))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{part.path}, row {row}: split must be train, test or validation, got "
            f"{part.split[row]!s}"
        )
    return names


def _keys(part: Columns) -> list[str]:
    return [str(key) for key in (range(len(part.x)) if part.key is None else part.key)]
