"""Image files in one directory per class, with or without `train/` and `test/` above them."""

import dataclasses
import os
import pathlib
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jist.data.dataset import Dataset
from jist.data.errors import DataError
from jist.data.holdout import held_out
from jist.data.images.band_names import shown_channels
from jist.data.images.bands import Bands
from jist.data.images.decoding import IMAGE_SUFFIXES, Pixels, read_image
from jist.data.images.layout import (
    SPELLINGS,
    check_classes,
    find_splits,
    remarks_on,
    shared_by_splits,
)
from jist.data.images.missing import read_with_missing
from jist.data.images.walk import directories, image_keys, say_passed_over
from jist.data.walked import Walked


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Folder(Dataset):
    """The image files of one split; keys are their paths relative to `root`, with slashes.

    Attributes:
        root: the directory above the classes, or above `train/` and `test/`.
        bands: how bands are read, of files that hold other than colours; its names are not empty.
    """

    root: pathlib.Path
    bands: Bands | None = None

    @property
    def channels(self) -> int:
        """Three colours, or as many bands as are read."""
        return 3 if self.bands is None else len(self.bands.names)

    def describe(self) -> dict[str, Any]:
        """Description of the data; of bands, how they are read."""
        own = {} if self.bands is None else {"bands": self.bands.describe()}
        return super().describe() | own

    def open(self, index: int) -> Image.Image:
        """Decodes the file, as `read_image`; of bands three, stretched.

        Missing pixels are black.
        """
        if self.bands is None:
            return read_image(self.locate(index))
        pixels, missing = self.bands.read(self.locate(index))
        shown = shown_channels(self.bands.names, self.channels)
        return as_picture(pixels[:, :, shown], missing)

    def decode(self, index: int) -> Pixels:
        """Decodes the file, as `read_image`; or its bands, as `Bands.read`."""
        if self.bands is None:
            return read_image(self.locate(index))
        return self.bands.read(self.locate(index))[0]

    def open_with_missing(
        self, index: int, no_data: int | None = None
    ) -> tuple[Pixels, Bool[np.ndarray, "height width"]]:
        """Decodes the file, as `read_with_missing`; or its bands, as `Bands.read`."""
        path = self.locate(index)
        return (
            read_with_missing(path, no_data)
            if self.bands is None
            else self.bands.read(path, no_data)
        )

    def locate(self, index: int) -> str:
        """The path of the file."""
        return os.path.join(self.root, self.keys[index])


def as_picture(
    colours: UInt8[np.ndarray, "height width 3"], missing: Bool[np.ndarray, "height width"]
) -> Image.Image:
    """Three bands as a picture: from the 2nd to the 98th percentile of what is there."""
    there = colours[~missing]
    low, high = np.percentile(there, (2, 98)) if len(there) else (0, 255)
    shown = np.clip((colours - low) * (255 / max(high - low, 1)), 0, 255)
    return Image.fromarray(np.where(missing[:, :, None], 0, shown).astype(np.uint8))


def load_folder(
    path: str, split: str, *, seed: int, test_share: float, base: str | os.PathLike = ""
) -> Folder:
    """Finds the images of a directory.

    Classes are directories, in the order of their names; files may lie deeper, and are those that
    `jist.data.images.walk` finds.

    Args:
        path: the directory. If its `train/` and `test/` (`Training/`, `TEST/`, ...) hold
            directories, those are the classes. `val/` (`Validation/`, `dev/`, ...) beside them is
            the validation split, or the test split where there is no `test/`; any other directory
            is passed over.
        split: "train", "test" or, where there is one, "validation".
        seed: decides the split if there is no `train/` and `test/`.
        test_share: share of every class held out for testing in that case.
        base: what a relative path is relative to, by default the working directory.

    Raises:
        ValueError: `path` is no directory, or the share lies outside (0, 1).
        DataError: there is no class or one alone, a class without image, `train/` without `test/`
            or the other way round, other classes in one than in the other, splits below the
            classes, or a symbolic link that leads round and round or to a directory of the same
            split.
    """
    root = base / pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise ValueError(f"folder:PATH needs the path of a directory, {path!r} is none")
    splits, counts = find_splits(root), Counter()
    if splits:
        class_names = _class_names(root / splits[split])
        for other in splits:
            differ = set(class_names) ^ set(_class_names(root / splits[other]))
            if differ:
                raise DataError(
                    f"{root}: {splits[split]}/ and {splits[other]}/ must hold the same class "
                    f"directories, only one of them holds {sorted(differ)}"
                )
        remarks = remarks_on(root / splits[split], class_names)
        remarks += shared_by_splits(root, splits, class_names)
        unused = [name for name in directories(root) if name not in splits.values()]
        if unused:
            remarks.append(
                f"{root}: beside {' and '.join(splits.values())}, {', '.join(unused)} passed over"
            )
        if splits["test"].lower() in SPELLINGS["validation"]:
            remarks.append(f"{root}: without test/, {splits['test']}/ is the test split")
        keys, labels = _scan(root, f"{splits[split]}/", class_names, counts)
    else:
        class_names = _class_names(root)
        remarks = remarks_on(root, class_names)
        keys, labels = _scan(root, "", class_names, counts)
        held = held_out(keys, labels, class_names, share=test_share, seed=seed)
        rows = np.flatnonzero(held if split == "test" else ~held)
        keys, labels = [keys[row] for row in rows], labels[rows]
    return Folder(
        name=f"folder:{path}",
        split=split,
        class_names=tuple(class_names),
        keys=tuple(keys),
        labels=labels,
        remarks=(*remarks, *say_passed_over(root, counts)),
        root=root,
    )


def _class_names(path: pathlib.Path) -> list[str]:
    names = directories(path)
    if not names:
        raise DataError(
            f"{path} holds no class directory; expected one directory per class in it, "
            "or in its train/ and test/"
        )
    check_classes(path, names)
    return names


def _scan(
    root: pathlib.Path, prefix: str, class_names: list[str], passed_over: Counter[str]
) -> tuple[list[str], np.ndarray]:
    """Keys and labels of the images in `root/prefix`."""
    keys, counts, walked = [], [], Walked()
    for name in class_names:
        before = len(keys)
        keys += image_keys(root, f"{prefix}{name}", passed_over, walked)
        counts.append(len(keys) - before)
        if not counts[-1]:
            raise DataError(
                f"class directory {root / prefix / name} holds no image; looked for files ending "
                f"in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
    return keys, np.repeat(np.arange(len(counts), dtype=np.int32), counts)
