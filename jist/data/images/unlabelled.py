"""Image files without labels, to pre-train on."""

import pathlib

import numpy as np

from jist.data.errors import DataError
from jist.data.images.decoding import IMAGE_SUFFIXES
from jist.data.images.folder import Folder, image_keys


def load_unlabelled(path: str, split: str) -> Folder:
    """Finds all images below a directory, as `load_folder` finds those of a class.

    Args:
        path: the directory.
        split: "train": nothing is held out.

    Returns:
        The images, all of one class, "unlabelled".

    Raises:
        ValueError: `path` is no directory, or `split` is not "train".
        DataError: there is no image, or a symbolic link leads round and round.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise ValueError(f"images:PATH needs the path of a directory, {path!r} is none")
    if split != "train":
        raise ValueError(
            f"images:{path} has no {split} images and no labels: it serves pre-training only; "
            "folder:PATH takes one directory per class"
        )
    keys = tuple(image_keys(root))
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
        root=root,
    )
