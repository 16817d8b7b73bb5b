"""Where the classes of a folder are: below a split or not, and what else such a folder may be.

A folder that is read as something else than its owner means trains to 100 % without a word. So
layouts that have no second class, or whose splits lie below the classes, are refused with the path
that was probably meant.
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

from jist.data.errors import DataError
from jist.data.images.walk import directories, images_beside

# Names of splits, in any case.
SPELLINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev"),
}


def find_splits(root: pathlib.Path) -> dict[str, str]:
    """The directories that hold the classes of a split: split -> name of its directory.

    A directory that has the name of a split but holds no directories may be a class. Where there is
    neither training nor test split, a directory called like one of validation is a class, too.
    Beside a training split without a test split, as in ImageNet, the validation split is the test
    split.

    Returns:
        "train" and "test", with "validation" or without; or nothing.

    Raises:
        DataError: one split has two spellings there, or one of training and test is missing.
    """
    found = {}
    for split, spellings in SPELLINGS.items():
        named = [n for n in directories(root) if n.lower() in spellings and directories(root / n)]
        if len(named) > 1:
            raise DataError(
                f"{root} holds {' and '.join(named)}: which of them is the {split} set?"
            )
        if named:
            found[split] = named[0]
    if not found.keys() & {"train", "test"}:
        return {}
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    for split, missing in (("train", "test"), ("test", "train")):
        if missing not in found:
            path = root / found[split]
            raise DataError(
                f"{path} holds class directories but {root / missing} does not; give both, "
                f"or folder:{path} to split its images by seed"
            )
    return found


def check_classes(root: pathlib.Path, names: list[str]) -> None:
    """Refuses classes that cannot be meant.

    Args:
        root: the directory of the classes.
        names: those of its directories.

    Raises:
        DataError: there is one class alone, or every class is divided into the same splits.
    """
    if len(names) == 1:
        raise DataError(f"{root} holds only one class ({names[0]}){_instead(root, names[0])}")
    below = {frozenset(directories(root / name)) for name in names}
    shared = sorted(next(iter(below))) if len(below) == 1 else []
    spelled = {s for spellings in SPELLINGS.values() for s in spellings}
    if len(shared) > 1 and all(name.lower() in spelled for name in shared):
        raise DataError(
            f"every class directory of {root} holds {', '.join(shared)}: these have to lie above "
            f"the classes, as in {root / shared[0] / names[0]}"
        )


def remarks_on(root: pathlib.Path, names: list[str]) -> list[str]:
    """What may be meant otherwise: images beside the classes, classes that look like groups."""
    remarks = []
    loose = images_beside(root)
    if loose:
        remarks.append(f"{root}: {len(loose)} images beside the class directories passed over")
    below = {frozenset(directories(root / name)) for name in names}
    shared = sorted(next(iter(below))) if len(below) == 1 else []
    if len(shared) > 1 and not any(images_beside(root / name) for name in names):
        remarks.append(
            f"{root}: the classes are {', '.join(names[:5])}, and each holds "
            f"{', '.join(shared[:5])}: if these are the classes, put all their images together"
        )
    return remarks


def shared_by_splits(
    root: pathlib.Path, splits: Mapping[str, str], names: Sequence[str]
) -> list[str]:
    """Lines on splits that hold the same directory of a class, by a symbolic link.

    Args:
        root: the directory of the splits.
        splits: as of `find_splits`.
        names: of the classes.
    """
    remarks = []
    for one, other in itertools.combinations(splits.values(), 2):
        same = [n for n in names if (root / one / n).samefile(root / other / n)]
        if same:
            remarks.append(
                f"{root}: {one}/ and {other}/ hold the same images of {len(same)} classes "
                f"({', '.join(same[:5])}), by symbolic links"
            )
    return remarks


def _instead(root: pathlib.Path, name: str) -> str:
    """What was probably meant where there is one class."""
    inner = root / name
    while len(directories(inner)) == 1 and not images_beside(inner):
        inner = inner / directories(inner)[0]
    if directories(inner) and not images_beside(inner):
        return f"; it holds class directories itself: give folder:{inner}"
    loose = len(images_beside(root))
    if loose:
        return f", and {loose} images beside it: put these into a directory of their class"
    return "; a classifier needs two (images:PATH takes images without labels)"
