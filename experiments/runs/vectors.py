"""Vectors of one's own as features, dense or sparse, with one class each."""

import abc
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx
from rich.progress import Progress

from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.directory import DIGEST, FEATURE_NAMES
from experiments.runs.remarks import say_once
from experiments.runs.splits import DenseSplit, SparseClassSplit, dense_splits
from experiments.runs.stores import Classified
from jist.data import DataError
from jist.data.sparse import SparseTable
from jist.data.vectors import (
    SUFFIXES,
    Columns,
    Vectors,
    in_order_of,
    read_features,
    splits_in,
    vectors_of,
)
from jist.features import Features
from jist.models import MLP, SparseMLP
from jist.ragged import Ragged

NAMES_DIGEST = f"{FEATURE_NAMES}{DIGEST}"  # in config.json
NOTED = 1000  # names


class InFiles(abc.ABC):
    """What inputs have in common whose vectors lie in files, as they are."""

    options: ImageOptions
    kind = "file of vectors (.npy, .npz, .parquet)"

    @property
    @abc.abstractmethod
    def opened(self) -> Sequence[Columns]:
        """The files of `features:PATH`; none of other data."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Length D of a vector."""

    @property
    @abc.abstractmethod
    def sparse_rows(self) -> bool:
        """Whether the vectors are sparse rows."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the features [D], where each has a column of its own."""
        return self.opened[0].names if self.opened else None

    @property
    def pinned_names(self) -> dict[str, Any]:
        """The digest of the features' names, if they have any; and of few the names."""
        if self.feature_names is None:
            return {}
        written = json.dumps(self.feature_names)
        noted = {FEATURE_NAMES: [*self.feature_names]} if len(self.feature_names) <= NOTED else {}
        return {NAMES_DIGEST: hashlib.sha256(written.encode()).hexdigest()} | noted

    def say_remarks(self) -> None:
        """Says what was left out of the files."""
        for file in self.opened:
            for remark in file.remarks:
                say_once(remark)

    def renewed(self, mask: str, mask_ratio: float) -> Callable[[int], np.ndarray] | None:
        """Vectors stay the same."""
        return None

    def takes(self, name: str) -> bool:
        """Whether a file holds vectors by its name."""
        return pathlib.Path(name).suffix.lower() in SUFFIXES

    def read_vectors(self, path: pathlib.Path) -> tuple[list[str], np.ndarray | Ragged]:
        """The vectors of a file that needs no labels, and the name of each: file and row.

        Features that have names are put into the run's order. A column that is called as the run's
        labels is none of them.

        Raises:
            DataError: it cannot be read, holds no vector or one that is not finite, or its vectors
                are of another length or kind, or its features are called otherwise.
        """
        part = read_features(path, self.options.labels)
        found = in_order_of(part, self.feature_names, self.options.dataset).x
        if isinstance(found, SparseTable) != self.sparse_rows:
            kind = "dense" if self.sparse_rows else "sparse"
            raise DataError(f"{path} holds {kind} vectors, unlike the run's")
        if found.shape[1] != self.dim:
            raise DataError(f"{path} has {found.shape[1]} features in a row, the run's {self.dim}")
        names = [f"{path}:{row}" for row in range(len(found))]
        if not names:
            raise DataError(f"{path} holds no rows")
        if isinstance(found, SparseTable):
            return names, found.rows  # finite, as `SparseTable` says
        with np.errstate(over="ignore"):  # which is told
            vectors = np.asarray(found, np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise DataError(f"{names[finite.argmin()]}: a feature is not finite in float32")
        return names, vectors


@dataclasses.dataclass(frozen=True)
class VectorInputs(InFiles, Classified):
    """Somebody's own vectors, as they are.

    Attributes:
        options: the options.
        files: what their path holds.

    Raises:
        UsageError: an option of sparse rows or of many labels, and the vectors are dense, or have
            one class each.
    """

    options: ImageOptions
    files: list[Columns]

    @property
    def sparse_rows(self) -> bool:
        """Whether the vectors are sparse rows."""
        return hold_sparse_rows(self.files)

    def __post_init__(self) -> None:
        options = self.options
        for option in ("multilabel_loss", "skip_empty", "negatives"):
            if getattr(options, option) == getattr(ImageOptions, option):
                continue
            given = f"--{option.replace('_', '-')}"
            raise UsageError(f"{given} needs examples with many labels; {options.dataset} has none")
        check_of_rows(options, sparse=self.sparse_rows)

    @property
    def opened(self) -> Sequence[Columns]:
        """The files."""
        return self.files

    @functools.cached_property
    def _splits(self) -> dict[str, Vectors]:
        options = self.options
        how: dict[str, Any] = {"seed": options.seed, "test_share": options.test_share}
        return {s: vectors_of(self.files, options.dataset, s, **how) for s in self.split_names}

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that there are."""
        return splits_in(self.files)

    @property
    def network(self) -> Callable[..., nnx.Module]:
        """A network for dense or for sparse rows."""
        return self._network

    @functools.cached_property  # so that it is one function, by which strategies are kept
    def _network(self) -> Callable[..., nnx.Module]:
        if not self.sparse_rows:
            return MLP
        return functools.partial(SparseMLP, **of_rows(self.options))

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return self._splits["train"].dim

    @property
    def pinned(self) -> Mapping[str, Any]:
        """The digest of vectors and labels: a file may be written anew under its name."""
        found = {split: vectors.describe() for split, vectors in self._splits.items()}
        return self.pinned_names | {
            f"{split}_{name}": found[split][name]
            for split in found
            for name in ("features_sha256", "examples_sha256")
        }

    @property
    def facts(self) -> Mapping[str, Any]:
        """No encoder is known; how networks are trained on sparse rows."""
        return {"encoder": "none"} | (of_rows(self.options) if self.sparse_rows else {})

    def in_order_of(self, run: "VectorInputs") -> "VectorInputs":
        """The same, with features that have names in the order of a run's.

        Raises:
            DataError: they are called otherwise.
        """
        names, origin = run.feature_names, run.options.dataset
        files = [in_order_of(file, names, origin) for file in self.files]
        return dataclasses.replace(self, files=files)

    def examples(self, split: str) -> Vectors:
        """The vectors."""
        return self._splits[split]

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> dict[str, DenseSplit] | dict[str, SparseClassSplit]:
        """The vectors as features; nothing is written."""
        self.say_remarks()
        if self.sparse_rows:
            return {split: SparseClassSplit(vectors) for split, vectors in self._splits.items()}
        found = {
            split: Features(
                label=vectors.labels,
                example_id=vectors.example_ids,
                attributes=vectors.describe() | {"skipped": [], "empty": []},
                read_cls=vectors.read,
                on_disk=vectors.on_disk,
            )
            for split, vectors in self._splits.items()
        }
        return dense_splits(found, self.options.resident_gb)

    def read(self, path: pathlib.Path) -> tuple[list[str], np.ndarray | Ragged]:
        """The vectors [N, D] of a file, and the name of each: file and row.

        Raises:
            DataError: it cannot be read, or its vectors are of another length or kind.
        """
        return self.read_vectors(path)


def of_rows(options: ImageOptions) -> dict[str, Any]:
    """The options of a network for sparse rows."""
    names = ("entry_dropout", "row_length", "output_dtype")
    return {name: getattr(options, name) for name in names}


def hold_sparse_rows(files: list[Columns]) -> bool:
    """Whether the vectors of files, which are of one kind, are sparse rows."""
    return any(isinstance(file.x, SparseTable) for file in files)


def check_of_rows(options: ImageOptions, *, sparse: bool) -> None:
    """Refuses the options of sparse rows where vectors are dense.

    Raises:
        UsageError: as said.
    """
    if sparse:
        return
    for option, value in of_rows(options).items():
        if value != getattr(ImageOptions, option):
            given = f"--{option.replace('_', '-')}"
            raise UsageError(f"{given} needs sparse rows; {options.dataset} holds none")
