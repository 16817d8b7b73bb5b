"""Sparse vectors with any number of labels each: two sparse matrices of SciPy."""

import numpy as np

from jist.data.errors import DataError
from jist.data.sparse.matrix import SparseTable
from jist.data.sparse.repository import SparseExamples
from jist.data.vectors.columns import Columns
from jist.data.vectors.vectors import of_split, rows_of


def have_many_labels(files: list[Columns]) -> bool:
    """Whether sparse vectors have a row of labels each, in the place of one class."""
    kinds = [(part.x, part.label) for part in files]
    return all(isinstance(table, SparseTable) for pair in kinds for table in pair)


def many_labelled(
    files: list[Columns], name: str, split: str, *, seed: int = 0, test_share: float = 0.2
) -> SparseExamples:
    """One split of sparse vectors with many labels.

    Args:
        files: as of `read_files`, so that `have_many_labels`.
        name: of the data set.
        split: "train", "test" or, if it is among `splits_in`, "validation".
        seed: decides the split of a file that brings none.
        test_share: share of all examples held out for testing there.

    Raises:
        DataError: the files differ in the number of labels, or there are no examples.
    """
    tables = [part.label for part in files if isinstance(part.label, SparseTable)]
    if len({table.columns for table in tables}) > 1:
        raise DataError(
            f"{files[0].path} has {tables[0].columns} labels, {files[1].path} has "
            f"{tables[1].columns}"
        )
    part = of_split(files, split)
    x, y = part.x, part.label
    assert isinstance(x, SparseTable)
    assert isinstance(y, SparseTable)
    one_class = np.zeros(len(x), np.int32)
    rows = rows_of(files, split, one_class, ("any",), seed=seed, test_share=test_share)
    labels = y.labels()
    return SparseExamples(
        name=name,
        split=split,
        features=x.rows.rows(rows),
        labels=labels.rows(rows),
        feature_count=x.columns,
        label_count=y.columns,
        numbers=rows,
    )
