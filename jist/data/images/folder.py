"""Image files in one directory per class, with or without `train/` and `test/` above them."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool
from PIL import Image

from jist.data.dataset import Dataset
from jist.data.errors import DataError
from jist.data.holdout import held_out
from jist.data.images.decoding import IMAGE_SUFFIXES, read_image
from jist.data.images.missing import MASK_SUFFIX, read_with_missing


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Folder(Dataset):
    """The image files of one split; keys are their paths relative to `root`, with slashes.

    Attributes:
        root: the directory above the classes, or above `train/` and `test/`.
    """

    root: pathlib.Path

    def open(self, index: int) -> Image.Image:
        """Decodes the file, as `read_image`."""
        return read_image(self.locate(index))

    def open_with_missing(
        self, index: int, no_data: int | None = None
    ) -> tuple[Image.Image, Bool[np.ndarray, "height width"]]:
        """Decodes the file, as `read_with_missing`."""
        return read_with_missing(self.locate(index), no_data)

    def locate(self, index: int) -> str:
        """The path of the file."""
        return os.path.join(self.root, self.keys[index])


def load_folder(path: str, split: str, *, seed: int, test_share: float) -> Folder:
    """Finds the images of a directory.

    Classes are directories, in the order of their names; files may lie deeper. What is hidden
    (`.name`), files of other suffixes than `IMAGE_SUFFIXES` and masks (`NAME.mask.png`) are passed
    over, symbolic links are followed.

    Args:
        path: the directory. If its `train/` and `test/` hold directories, those are the classes
            and any other directory beside the two is passed over.
        split: "train" or "test".
        seed: decides the split if there is no `train/` and `test/`.
        test_share: share of every class held out for testing in that case.

    Raises:
        ValueError: `path` is no directory, or the share lies outside (0, 1).
        DataError: there is no class, a class without image, `train/` without `test/` or the other
            way round, other classes in one than in the other, or a symbolic link that leads round
            and round.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise ValueError(f"folder:PATH needs the path of a directory, {path!r} is none")
    if _brings_split(root):
        class_names = _class_names(root / split)
        other = "train" if split == "test" else "test"
        differ = set(class_names) ^ set(_class_names(root / other))
        if differ:
            raise DataError(
                f"{root}: train/ and test/ must hold the same class directories, "
                f"only one of them holds {sorted(differ)}"
            )
        keys, labels = _scan(root, f"{split}/", class_names)
    else:
        class_names = _class_names(root)
        keys, labels = _scan(root, "", class_names)
        held = held_out(keys, labels, class_names, share=test_share, seed=seed)
        rows = np.flatnonzero(held if split == "test" else ~held)
        keys, labels = [keys[row] for row in rows], labels[rows]
    return Folder(
        name=f"folder:{path}",
        split=split,
        class_names=class_names,
        keys=tuple(keys),
        labels=labels,
        root=root,
    )


def _brings_split(root: pathlib.Path) -> bool:
    """Whether `train/` and `test/` hold the classes; either, holding files, may be a class."""
    found = [name for name in ("train", "test") if directories(root / name)]
    if len(found) == 1:
        missing = "test" if found == ["train"] else "train"
        raise DataError(
            f"{root / found[0]} holds class directories but {root / missing} does not; give both, "
            f"or folder:{root / found[0]} to split its images by seed"
        )
    return bool(found)


def directories(path: pathlib.Path) -> list[str]:
    """Names of the directories in a directory, in their order; none where it is no directory."""
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in _visible(path) if _is_directory(entry))


def _class_names(path: pathlib.Path) -> tuple[str, ...]:
    names = directories(path)
    if not names:
        raise DataError(
            f"{path} holds no class directory; expected one directory per class in it, "
            "or in its train/ and test/"
        )
    return tuple(names)


def _scan(
    root: pathlib.Path, prefix: str, class_names: tuple[str, ...]
) -> tuple[list[str], np.ndarray]:
    """Keys and labels of the images in `root/prefix`."""
    keys, counts = [], []
    for name in class_names:
        before = len(keys)
        keys += image_keys(root, f"{prefix}{name}")
        counts.append(len(keys) - before)
        if not counts[-1]:
            raise DataError(
                f"class directory {root / prefix / name} holds no image; looked for files ending "
                f"in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
    return keys, np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and no mask of one."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.endswith(MASK_SUFFIX)


def image_keys(root: pathlib.Path, key: str = "") -> Iterator[str]:
    """Paths, relative to `root`, of the images in it or its sub-directory `key`, however deep.

    Raises:
        DataError: a symbolic link leads round and round.
    """
    directory = root / key
    for above in pathlib.PurePath(key).parents:
        if directory.samefile(root / above):
            raise DataError(
                f"{directory} is a symbolic link that leads back up to {root / above}; remove it"
            )
    for entry in _visible(directory):
        name = f"{key}/{entry.name}" if key else entry.name
        if _is_directory(entry):
            yield from image_keys(root, name)
        elif is_image(entry.name):
            yield name


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # such as a link to itself
        raise DataError(f"{entry.path} cannot be followed: {error.strerror}") from error


def _visible(path: pathlib.Path) -> list[os.DirEntry[str]]:
    # scandir learns from the listing itself what is a directory: no call per file.
    with os.scandir(path) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: entry.name)
