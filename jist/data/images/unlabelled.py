"""Image files without labels, to pre-train on."""

import os
import pathlib
from collections import Counter

import numpy as np

from jist.data.errors import DataError
from jist.data.images.decoding import IMAGE_SUFFIXES
from jist.data.images.folder import Folder
from jist.data.images.walk import image_keys, say_passed_over
from jist.data.walked import Walked


def load_unlabelled(path: str, split: str, *, base: str | os.PathLike = "") -> Folder:
    """Finds all images below a directory, as `load_folder` finds those of a class.

    Args:
        path: the directory.
        split: "train": nothing is held out.
        base: what a relative path is relative to, by default the working directory.

    Returns:
        The images, all of one class, "unlabelled".

    Raises:
        ValueError: `path` is no directory, or `split` is not "train".
        DataError: there is no image, or a symbolic link leads round and round or to what is there.
    """
    root = base / pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise ValueError(f"images:PATH needs the path of a directory, {path!r} is none")
    if split != "train":
        raise ValueError(
            f"images:{path} has no {split} images and no labels: it serves pre-training only; "
            "folder:PATH takes one directory per class"
        )
    counts: Counter[str] = Counter()
    keys = tuple(image_keys(root, passed_over=counts, walked=Walked()))
    if not keys:
        raise DataError(
            f"{root} holds no image; looked for files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}, at any depth"
        )
    return Folder(
        name=f"images:{path}",
        split=split,
        class_names=("unlabelled",),
        keys=keys,
        labels=np.zeros(len(keys), np.int32),
        remarks=tuple(say_passed_over(root, counts)),
        root=root,
    )
