"""Vectors of one's own as features."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.command.options import ImageOptions
from experiments.runs.splits import DenseSplit
from experiments.runs.stores import SPLITS, Classified
from jist.data import DataError
from jist.data.vectors import SUFFIXES, Vectors, load_vectors, read_columns
from jist.features import Features


@dataclasses.dataclass(frozen=True)
class VectorInputs(Classified):
    """Somebody's own vectors, as they are."""

    options: ImageOptions
    kind = "file of vectors (.npy, .npz, .parquet)"

    @functools.cached_property
    def _splits(self) -> dict[str, Vectors]:
        path = self.options.dataset.removeprefix("features:")
        how = {"labels": self.options.labels, "seed": self.options.seed}
        how["test_share"] = self.options.test_share
        return {split: load_vectors(path, split, **how) for split in SPLITS}

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return self._splits["train"].dim

    @property
    def pinned(self) -> Mapping[str, str]:
        """The digest of vectors and labels: a file may be written anew under its name."""
        found = {split: vectors.describe() for split, vectors in self._splits.items()}
        return {
            f"{split}_{name}": found[split][name]
            for split in SPLITS
            for name in ("features_sha256", "examples_sha256")
        }

    @property
    def facts(self) -> Mapping[str, Any]:
        """No encoder is known."""
        return {"encoder": "none"}

    def examples(self, split: str) -> Vectors:
        """The vectors."""
        return self._splits[split]

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> dict[str, DenseSplit]:
        """The vectors as features; nothing is written."""
        return {
            split: DenseSplit(
                Features(
                    label=vectors.labels,
                    example_id=vectors.example_ids,
                    attributes=vectors.describe() | {"skipped": [], "empty": []},
                    read_cls=vectors.read,
                    on_disk=vectors.on_disk,
                ),
                self.options.resident_gb,
            )
            for split, vectors in self._splits.items()
        }

    def renewed(self, mask: str, mask_ratio: float) -> Callable[[int], np.ndarray] | None:
        """Vectors stay the same."""
        return None

    def takes(self, name: str) -> bool:
        """Whether a file holds vectors by its name."""
        return pathlib.Path(name).suffix.lower() in SUFFIXES

    def read(self, path: pathlib.Path) -> tuple[list[str], np.ndarray]:
        """The vectors [N, D] of a file, and the name of each: file and row.

        Raises:
            DataError: it cannot be read, or its vectors are of another length.
        """
        found = read_columns(path).x
        if found.shape[1] != self.dim:
            raise DataError(f"{path} has {found.shape[1]} features in a row, the run's {self.dim}")
        return [f"{path}:{row}" for row in range(len(found))], np.asarray(found, np.float32)
