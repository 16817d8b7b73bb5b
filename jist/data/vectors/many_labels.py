"""Vectors with any number of labels each, dense or sparse."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from jaxtyping import Int

from jist.data.many_labels import ManyLabelled
from jist.data.sparse.matrix import SparseTable
from jist.data.sparse.repository import SparseExamples
from jist.data.vectors.columns import Columns
from jist.data.vectors.label_rows import has_several, label_rows
from jist.data.vectors.table_rows import TableRows
from jist.data.vectors.vectors import of_split, rows_of


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelledVectors(ManyLabelled):
    """Dense vectors with any number of labels each.

    Attributes:
        vectors: the vectors.
    """

    vectors: TableRows

    def rows(self, which: Int[np.ndarray, " some"]) -> "LabelledVectors":
        """Some of the examples."""
        return dataclasses.replace(
            self,
            vectors=dataclasses.replace(self.vectors, rows=self.vectors.rows[which]),
            labels=self.labels.rows(which),
            numbers=self.numbers[which],
        )

    def _digests(self) -> dict[str, str]:
        digest = hashlib.sha256("\n".join(self.label_names).encode())
        for array in (self.numbers, self.labels.offsets, self.labels.entries):
            digest.update(np.ascontiguousarray(array).data)
        return {
            "features_sha256": self.vectors.sha256,
            "examples_sha256": digest.hexdigest(),
        }


def have_many_labels(files: list[Columns]) -> bool:
    """Whether vectors have any number of labels each, in the place of one class."""
    return all(has_several(part.label) for part in files)


def many_labelled(
    files: list[Columns], name: str, split: str, *, seed: int = 0, test_share: float = 0.2
) -> SparseExamples | LabelledVectors:
    """One split of vectors with many labels.

    Args:
        files: as of `read_files`, so that `have_many_labels`.
        name: of the data set.
        split: "train", "test" or, if it is among `splits_in`, "validation".
        seed: decides the split of a file that brings none.
        test_share: share of all examples held out for testing there.

    Raises:
        DataError: there are no examples; or as `label_rows`.
    """
    found = label_rows(files)
    part = of_split(files, split)
    one_class = np.zeros(len(part.x), np.int32)
    rows = rows_of(files, split, one_class, ("any",), seed=seed, test_share=test_share)
    labels = dict(zip(map(id, files), found.of_files, strict=True))[id(part)]
    known: dict[str, Any] = {
        "name": name,
        "split": split,
        "feature_count": part.x.shape[1],
        "labels": labels.rows(rows),
        "label_count": found.count,
        "label_names": found.names,
        "numbers": rows,
    }
    if isinstance(part.x, SparseTable):
        return SparseExamples(features=part.x.rows.rows(rows), **known)
    return LabelledVectors(vectors=TableRows(path=part.path, rows=rows, table=part.x), **known)
