"""Data sets by name."""

import os
import pathlib

from jist.data.dataset import Dataset
from jist.data.images.by_tfds_name import load_tfds, tfds_splits
from jist.data.images.cifar10 import load_cifar10
from jist.data.images.digits import load_digits
from jist.data.images.folder import load_folder
from jist.data.images.layout import find_splits
from jist.data.images.masked import load_masked
from jist.data.images.published import PUBLISHED
from jist.data.images.scenes import load_scenes
from jist.data.images.unlabelled import load_unlabelled

SPLITS = ("train", "validation", "test")


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
        name: `digits` (bundled with scikit-learn), `cifar10` or `tfds:NAME[/CONFIG]` (prepared by
            TFDS), `resisc45`, `aid`, `eurosat`, `eurosat-ms` and `ucmerced` (the authors'
            extracted folder; `resisc45` also prepared by TFDS), `folder:PATH` (one directory per
            class, below `train/` and `test/` or not), `masked:PATH` (written by
            `experiments.mask_dataset`), or `images:PATH` (all images below a directory, without
            labels; only "train").
        split: "train", "test" or, if it is among `splits_of`, "validation".
        data_dir: where TFDS keeps its prepared data sets, or the extracted folder or one above it;
            where a PATH that is relative begins, in place of the working directory.
        seed: decides the split of data sets that come without one (all but `cifar10`, folders with
            `train/` and `test/`, masked images and those without labels).
        test_share: share of every class held out for testing in `digits`, in folders without
            `train/` and `test/`, and in data sets of TFDS without a further split.

    Raises:
        ValueError: an unknown name or split, a path that is no directory, a share outside (0, 1),
            or a data set without a validation split.
        DataError: the data cannot be used; the message says why.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if split == "validation" and split not in splits_of(name, data_dir=data_dir):
        raise ValueError(f"{name} has no validation split")
    base = _base(data_dir)
    if name == "digits":
        return load_digits(split, seed=seed, test_share=test_share)
    if name == "cifar10":
        return load_cifar10(split, data_dir=data_dir)
    if name.startswith("tfds:"):
        path = name.removeprefix("tfds:")
        return load_tfds(path, split, data_dir=data_dir, seed=seed, test_share=test_share)
    if name in PUBLISHED:
        return load_scenes(PUBLISHED[name], split, data_dir=data_dir, seed=seed)
    if name.startswith("folder:"):
        path = name.removeprefix("folder:")
        return load_folder(path, split, seed=seed, test_share=test_share, base=base)
    if name.startswith("masked:"):
        return load_masked(name.removeprefix("masked:"), split, base=base)
    if name.startswith("images:"):
        return load_unlabelled(name.removeprefix("images:"), split, base=base)
    raise ValueError(
        f"dataset must be digits, cifar10, {', '.join(PUBLISHED)}, tfds:NAME, folder:PATH, "
        f"masked:PATH or images:PATH, got {name!r}"
    )


def splits_of(name: str, *, data_dir: str | os.PathLike | None = None) -> tuple[str, ...]:
    """The splits of a data set that has a name.

    Args:
        name: as of `load_dataset`.
        data_dir: likewise.

    Returns:
        "train" and "test"; where the data bring one, "validation"; of `images:PATH` "train" alone.

    Raises:
        DataError: a folder has one split twice, or one of training and test is missing; TFDS is
            not installed, or has not prepared the data set.
    """
    kind, _, path = name.partition(":")
    root = pathlib.Path(_base(data_dir)) / pathlib.Path(path).expanduser()
    if kind == "images":
        return ("train",)
    if kind == "folder":
        brings = "validation" in find_splits(root)
    elif kind == "tfds":
        brings = "validation" in tfds_splits(path, data_dir=data_dir)
    else:
        brings = kind == "masked" and (root / "validation").is_dir()
    return ("train", "validation", "test") if brings else ("train", "test")


def _base(data_dir: str | os.PathLike | None) -> str:
    return "" if data_dir is None else os.path.expanduser(data_dir)
