"""The Extreme Classification Repository's files: examples with sparse features and many labels.

Either `train.txt` and `test.txt`, with a header `examples features labels` and lines
`label,label index:value index:value`; or a pair of sparse matrices for each split, `trn_X_Xf.txt`
and `trn_X_Y.txt` (`tst_…`), with a header `rows columns` and lines `index:value index:value`. All
may be compressed, with `.gz` behind their names. Bhatia et al., The Extreme Classification
Repository, 2016.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int, UInt32

from jist.data.dataset import example_id
from jist.data.errors import DataError
from jist.data.holdout import held_out
from jist.data.sparse.text import find, read_header, read_rows
from jist.ragged import Ragged

SPLITS = ("train", "test")
_COUNTED = ("examples", "features", "labels")
_PAIR = {"train": "trn", "test": "tst"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SparseExamples:
    """Examples with sparse features and any number of labels each.

    Attributes:
        name: what they were loaded by.
        split: "train" or "test".
        features: rows of {"indices": i32, "values": f32}.
        labels: rows of i32 with padding -1.
        feature_count: number of features F.
        label_count: number of labels L.
        numbers: which examples of the file these are, counted from 0 [N].
        left_out: how many examples were left out because they had no feature or no label.
    """

    name: str
    split: str
    features: Ragged
    labels: Ragged
    feature_count: int
    label_count: int
    numbers: Int[np.ndarray, " examples"]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def arrays(self) -> dict[str, Ragged]:
        """Examples as `jist.trainer.train` and `jist.evaluation.evaluate` take them."""
        return {"x": self.features, "y": self.labels}

    @property
    def label_frequencies(self) -> Int[np.ndarray, " labels"]:
        """How many of the examples have each label [L]."""
        return np.bincount(self.labels.entries, minlength=self.label_count)

    @functools.cached_property
    def example_ids(self) -> UInt32[np.ndarray, " examples"]:
        """Stable ids [N]: of the split and the place in the file."""
        return np.array([example_id(key) for key in self._keys()], np.uint32)

    def rows(self, which: Int[np.ndarray, " some"]) -> "SparseExamples":
        """Some of the examples."""
        return dataclasses.replace(
            self,
            features=self.features.rows(which),
            labels=self.labels.rows(which),
            numbers=self.numbers[which],
        )

    def without_empty(self) -> "SparseExamples":
        """Those that have a feature and a label; the others are counted in `left_out`."""
        some = [np.diff(rows.offsets) > 0 for rows in (self.features, self.labels)]
        kept = np.flatnonzero(some[0] & some[1])
        return dataclasses.replace(self.rows(kept), left_out=len(self) - len(kept))

    def hold_out(self, share: float, seed: int) -> tuple["SparseExamples", "SparseExamples"]:
        """Splits the examples, as `jist.data.holdout` does those of one class.

        Args:
            share: share that is held out, in (0, 1).
            seed: decides which.

        Returns:
            The examples that are left to train on, and those held out.

        Raises:
            ValueError: a share outside (0, 1).
            DataError: there is a single example.
        """
        one_class = np.zeros(len(self), np.int32)
        held = held_out(self._keys(), one_class, ("any",), share=share, seed=seed)
        return self.rows(np.flatnonzero(~held)), self.rows(np.flatnonzero(held))

    def describe(self) -> dict[str, Any]:
        """Description of the data, as JSON; equal for equal examples."""
        digest = hashlib.sha256()
        for rows in (self.features, self.labels):
            digest.update(rows.offsets.tobytes())
        for array in (*self.features.entries.values(), self.labels.entries):
            digest.update(array.tobytes())
        return {
            "dataset": self.name,
            "split": self.split,
            "examples": len(self),
            "features": self.feature_count,
            "labels": self.label_count,
            "left_out": self.left_out,
            "examples_sha256": digest.hexdigest(),
        }

    def _keys(self) -> list[str]:
        return [f"{self.split}/{number}" for number in self.numbers.tolist()]


def load_xc(path: str | os.PathLike, split: str, *, skip_empty: bool = False) -> SparseExamples:
    """One split of a directory in the Repository's format.

    Args:
        path: the directory of the files.
        split: "train" or "test".
        skip_empty: leaves out examples that have no label or no feature; they are counted. By
            default they are kept, and have none.

    Raises:
        ValueError: `path` is no directory, or no such split.
        DataError: files are missing, the splits differ in features or labels, a header does not fit
            its lines, or a line cannot be read; the message names file and line.
    """
    root = pathlib.Path(path).expanduser()
    if not os.fspath(path) or not root.is_dir():
        raise ValueError(f"xc:PATH needs the path of a directory, {os.fspath(path)!r} is none")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    sizes = {split: _sizes(root, split)}
    sizes |= {other: _sizes(root, other) for other in SPLITS if other != split}
    first, second = (sizes[name] for name in SPLITS)
    for number in (1, 2):
        if first[number] != second[number]:
            raise DataError(
                f"{root}: the headers differ: {first[number]} {_COUNTED[number]} to train on, "
                f"{second[number]} to test on"
            )
    count, feature_count, label_count = sizes[split]
    features, labels = _read(root, split, count, feature_count, label_count)
    examples = SparseExamples(
        name=f"xc:{os.fspath(path)}",
        split=split,
        features=features,
        labels=labels,
        feature_count=feature_count,
        label_count=label_count,
        numbers=np.arange(count),
    )
    return examples.without_empty() if skip_empty else examples


def _files(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The file of a split, or its two."""
    one = root / f"{split}.txt"
    pair = [root / f"{_PAIR[split]}_X_{kind}.txt" for kind in ("Xf", "Y")]
    for files in ([one], pair):
        found = [path for path in map(find, files) if path is not None]
        if len(found) == len(files):
            return found
    raise DataError(
        f"{root} holds no examples to {split}: looked for {one.name}, and for {pair[0].name} with "
        f"{pair[1].name}, each also with .gz behind it"
    )


def _sizes(root: pathlib.Path, split: str) -> tuple[int, int, int]:
    """Examples, features and labels by the headers."""
    files = _files(root, split)
    if len(files) == 1:
        count, features, labels = read_header(files[0], _COUNTED)
        return count, features, labels
    count, features = read_header(files[0], ("examples", "features"))
    also, labels = read_header(files[1], ("examples", "labels"))
    if count != also:
        raise DataError(f"the headers differ: {count} examples in {files[0]}, {also} in {files[1]}")
    return count, features, labels


def _read(
    root: pathlib.Path, split: str, count: int, features: int, labels: int
) -> tuple[Ragged, Ragged]:
    files = _files(root, split)
    if len(files) == 1:
        return read_rows(files[0], count, (features, labels), labelled=True)
    x, _ = read_rows(files[0], count, (features,), labelled=False)
    y, _ = read_rows(files[1], count, (labels,), labelled=False)
    return x, Ragged(y.offsets, y.entries["indices"], y.longest, fill=-1)
