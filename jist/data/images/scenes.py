"""Scenes from the air and from orbit, from the folders of their authors, split by class and seed.

The data sets bring no split. RESISC45 and AID are divided as by Kariotakis et al. (CPAL 2024,
Table 1), of the others a fifth is for testing.
"""

import dataclasses
import os
import pathlib
from collections import Counter

import numpy as np

from jist.data.dataset import Dataset
from jist.data.errors import DataError
from jist.data.holdout import held_out_in_all
from jist.data.images.folder import Folder
from jist.data.images.prepared import load_prepared
from jist.data.images.published import PUBLISHED, RESISC45, Published
from jist.data.images.walk import directories, image_keys, say_passed_over
from jist.data.walked import Walked

# A copy with a stray directory gets a message; other data sets share at most half of the classes.
_MOST = 3 / 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scenes(Folder):
    """Image files; keys are the name (`aid/`), the class as its authors spell it, and the file.

    Attributes:
        files: where each image lies, relative to `root` [N].
    """

    files: tuple[str, ...]

    def locate(self, index: int) -> str:
        """The path of the file."""
        return os.path.join(self.root, self.files[index])


def load_scenes(
    published: Published, split: str, *, data_dir: str | os.PathLike | None, seed: int
) -> Dataset:
    """One of `PUBLISHED` from the extracted folder; RESISC45 also as TFDS has prepared it.

    Directories of classes are recognised whatever their case and separators, in `data_dir` or some
    directories below it. There are as many test images as `Published` says, or the same proportion
    of fewer images; every class gives its share, at least one. Which ones depends on seed, class
    and file name only, so every copy is split alike, prepared by TFDS or not.

    Args:
        published: which of them.
        split: "train" or "test".
        data_dir: where to look; by default where TFDS keeps data sets, `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.
        seed: decides the split.

    Raises:
        DataError: it is missing (the message says where to get it and where to put it), or
            cannot be used.
    """
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    above = pathlib.Path(default if data_dir is None else data_dir).expanduser()
    found = _find(published, above)
    if found:
        whole: Dataset = _scan(published, split, found)
    elif published is RESISC45 and any(above.glob("resisc45/*/dataset_info.json")):
        whole = load_prepared(
            published.name,
            "train",  # TFDS has no other
            split=split,
            data_dir=above,
            key=lambda example, name: f"{published.name}/{name}/{example['filename'].decode()}",
            costs="from the extracted folder in downloads/manual, and uses TensorFlow",
        )
    else:
        raise DataError(_where_from(published, above))
    count = (2 * len(whole) * published.test + published.images) // (2 * published.images)
    held = held_out_in_all(whole.keys, whole.labels, whole.class_names, count=count, seed=seed)
    return _choose(whole, np.flatnonzero(held if split == "test" else ~held))


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _find(published: Published, above: pathlib.Path) -> dict[str, pathlib.Path]:
    """The directory of each class that is there; none if the data set is not."""
    known = {_plain(name): name for name in published.class_names}
    others = [{*map(_plain, of.class_names)} for of in PUBLISHED.values()]
    candidates: dict[pathlib.Path, list[str]] = {}
    level = [above]
    for _ in range(published.depth + 1):
        below = []
        for path in level:
            inside = _subdirectories(path)
            plain = [*map(_plain, inside)]
            known_here = sum(name in known for name in plain)
            if known_here > _MOST * len(inside):
                best = max(sum(name in other for name in plain) for other in others)
                if known_here == best and _are_of(published, path, inside):
                    candidates[path] = inside
            else:
                below += [path / name for name in inside]
        level = below
    if not candidates:
        return {}
    most = max(map(len, candidates.values()))
    best = [path for path, inside in candidates.items() if len(inside) == most]
    if len(best) > 1:
        raise DataError(
            f"{published.name} lies in {above} more than once: {', '.join(map(str, best))}; "
            "give one of them as data_dir (or, for a split of its own, folder:PATH as dataset)"
        )
    found: dict[str, pathlib.Path] = {}
    for name in candidates[best[0]]:
        spelled = known.get(_plain(name))
        if spelled is None or spelled in found:
            reason = "no class" if spelled is None else f"class {spelled!r} once more"
            raise DataError(
                f"{best[0] / name} is {reason} of {published.name}; move it away or rename it"
            )
        found[spelled] = best[0] / name
    return found


def _are_of(published: Published, path: pathlib.Path, class_names: list[str]) -> bool:
    """Whether the images in the directories of the classes have the suffix that they must have."""
    if not published.suffixes:
        return True
    keys = (key for name in class_names for key in image_keys(path, name))
    return os.path.splitext(next(keys, ""))[1].lower() in published.suffixes


def _subdirectories(path: pathlib.Path) -> list[str]:
    """Sub-directories to search; none if reading the directory is not permitted."""
    try:
        return [name for name in directories(path) if not name.startswith("_")]
    except PermissionError:
        return []


def _scan(published: Published, split: str, found: dict[str, pathlib.Path]) -> Scenes:
    class_names = tuple(name for name in published.class_names if name in found)
    root = found[class_names[0]].parent
    keys, files, labels, counts, walked = [], [], [], Counter(), Walked()
    for label, name in enumerate(class_names):
        inside = list(image_keys(root, found[name].name, counts, walked))
        if not inside:
            raise DataError(f"class directory {found[name]} holds no image")
        keys += [f"{published.name}/{name}/{file.split('/', 1)[1]}" for file in inside]
        files += inside
        labels += [label] * len(inside)
    return Scenes(
        name=published.name,
        split=split,
        class_names=class_names,
        keys=tuple(keys),
        labels=np.array(labels, np.int32),
        remarks=tuple(say_passed_over(root, counts)),
        root=root,
        files=tuple(files),
    )


def _choose(whole: Dataset, rows: np.ndarray) -> Dataset:
    parts: dict = {"keys": tuple(whole.keys[row] for row in rows), "labels": whole.labels[rows]}
    if isinstance(whole, Scenes):
        parts["files"] = tuple(whole.files[row] for row in rows)
    else:
        parts["rows"] = rows
    return dataclasses.replace(whole, **parts)


def _where_from(published: Published, above: pathlib.Path) -> str:
    some = ", ".join(published.class_names[:3])
    return (
        f"{published.name} is not in {above}: no directory there, or up to {published.depth} "
        f"below, holds its {len(published.class_names)} class directories ({some}, ...); get it "
        f"from {published.source}, extract it, and give --data-dir the extracted folder "
        f"{published.folder} or one above it"
    )
