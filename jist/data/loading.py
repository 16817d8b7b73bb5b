"""Data sets by name."""

import os

from jist.data.cifar10 import load_cifar10
from jist.data.dataset import Dataset
from jist.data.digits import load_digits
from jist.data.folder import load_folder

SPLITS = ("train", "test")


def load_dataset(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    test_share: float = 0.2,
) -> Dataset:
    """One split of a data set; images are decoded when they are opened.

    Args:
        name: `digits` (bundled with scikit-learn), `cifar10` (prepared by TFDS), or `folder:PATH`
            (one directory per class, `train/` and `test/` on top or not).
        split: "train" or "test".
        data_dir: where TFDS keeps its prepared data sets; the others do not look at it.
        seed: decides the split of data sets that bring none (`digits`, and folders without
            `train/` and `test/`).
        test_share: share of every class held out for testing in those.

    Raises:
        ValueError: an unknown name or split, a path that is no directory, a share outside (0, 1).
        DataError: the data cannot be used as they lie there; the message says why.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if name == "digits":
        return load_digits(split, seed=seed, test_share=test_share)
    if name == "cifar10":
        return load_cifar10(split, data_dir=data_dir)
    if name.startswith("folder:"):
        path = name.removeprefix("folder:")
        return load_folder(path, split, seed=seed, test_share=test_share)
    raise ValueError(f"dataset must be digits, cifar10 or folder:PATH, got {name!r}")
