"""The Extreme Classification Repository's files: examples with sparse features and many labels.

Either `train.txt` and `test.txt`, with a header `examples features labels` and lines
`label,label index:value index:value`; or a pair of sparse matrices for each split, `trn_X_Xf.txt`
and `trn_X_Y.txt` (`tst_…`), with a header `rows columns` and lines `index:value index:value`. All
may be compressed, with `.gz` behind their names. Bhatia et al., The Extreme Classification
Repository, 2016.
"""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
from jaxtyping import Bool, Int

from jist.data.errors import DataError
from jist.data.many_labels import ManyLabelled
from jist.data.sparse.text import find, read_header, read_rows
from jist.ragged import Ragged

SPLITS = ("train", "test")
_COUNTED = ("examples", "features", "labels")
_PAIR = {"train": "trn", "test": "tst"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SparseExamples(ManyLabelled):
    """Examples with sparse features and any number of labels each.

    Attributes:
        features: rows of {"indices": i32, "values": f32}.
    """

    features: Ragged

    @property
    def arrays(self) -> dict[str, Ragged]:
        """Examples as `jist.trainer.train` and `jist.evaluation.evaluate` take them."""
        return {"x": self.features, "y": self.labels}

    def rows(self, which: Int[np.ndarray, " some"]) -> "SparseExamples":
        """Some of the examples."""
        return dataclasses.replace(
            self,
            features=self.features.rows(which),
            labels=self.labels.rows(which),
            numbers=self.numbers[which],
        )

    def _digests(self) -> dict[str, str]:
        digest = hashlib.sha256()
        for rows in (self.features, self.labels):
            digest.update(rows.offsets.tobytes())
        for array in (*self.features.entries.values(), self.labels.entries):
            digest.update(array.tobytes())
        return {"examples_sha256": digest.hexdigest()}

    def _has_features(self) -> Bool[np.ndarray, " examples"]:
        return np.diff(self.features.offsets) > 0


def load_xc(
    path: str | os.PathLike,
    split: str,
    *,
    skip_empty: bool = False,
    base: str | os.PathLike = "",
) -> SparseExamples:
    """One split of a directory in the Repository's format.

    Args:
        path: the directory of the files.
        split: "train" or "test".
        skip_empty: leaves out examples that have no label or no feature; they are counted. By
            default they are kept, and have none.
        base: where a relative path begins, in place of the working directory.

    Raises:
        ValueError: `path` is no directory, or no such split.
        DataError: files are missing, the splits differ in features or labels, a header does not fit
            its lines, or a line cannot be read; the message names file and line.
    """
    root = _directory(path, split, base)
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


def load_xc_features(path: str | os.PathLike, split: str) -> tuple[Ragged, int]:
    """The features of one split, of a directory that need not hold the other.

    Labels are not needed: of a pair of matrices only that of the features is read.

    Args:
        path: as of `load_xc`.
        split: likewise.

    Returns:
        Rows of {"indices": i32, "values": f32}, and the number of features.

    Raises:
        ValueError: as `load_xc`.
        DataError: as `load_xc`, of these files.
    """
    root = _directory(path, split)
    one, (x, _) = root / f"{split}.txt", _pair(root, split)
    if find(one) is None and (found := find(x)) is not None:
        count, features = read_header(found, ("examples", "features"))
        return read_rows(found, count, (features,), labelled=False)[0], features
    count, features, labels = _sizes(root, split)
    return _read(root, split, count, features, labels)[0], features


def _directory(path: str | os.PathLike, split: str, base: str | os.PathLike = "") -> pathlib.Path:
    root = base / pathlib.Path(path).expanduser()
    if not os.fspath(path) or not root.is_dir():
        raise ValueError(f"xc:PATH needs the path of a directory, {os.fspath(path)!r} is none")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return root


def _pair(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Where the matrices of a split are, of features and of labels."""
    return [root / f"{_PAIR[split]}_X_{kind}.txt" for kind in ("Xf", "Y")]


def _files(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The file of a split, or its two."""
    one = root / f"{split}.txt"
    pair = _pair(root, split)
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
