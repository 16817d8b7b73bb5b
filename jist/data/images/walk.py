"""One walk over directories, for every script: which files are images, and which are passed over.

Out are hidden files and directories (`.name`: also AppleDouble files, thumbnails, copies that
notebooks keep), the directories `__MACOSX` and `@eaDir`, masks (`NAME.mask.png`, which are read
with their image), and files of other suffixes. Symbolic links are followed; a data set takes no
directory twice.
"""

import os
import pathlib
from collections import Counter
from collections.abc import Iterator

from jist.data.errors import DataError
from jist.data.images.decoding import IMAGE_SUFFIXES
from jist.data.images.missing import MASK_SUFFIX
from jist.data.walked import Walked

_NO_IMAGES = frozenset({"__MACOSX", "@eaDir"})  # archives of macOS, Synology's thumbnails


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and no mask of one."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.endswith(MASK_SUFFIX)


def image_keys(
    root: pathlib.Path,
    key: str = "",
    passed_over: Counter[str] | None = None,
    walked: Walked | None = None,
) -> Iterator[str]:
    """Paths, relative to `root`, of the images in it or its sub-directory `key`, however deep.

    Args:
        root: a directory.
        key: a path below it, with slashes.
        passed_over: counts the other files by their suffixes, if given; not those that are hidden.
        walked: directories that were walked before, to which those below are added, if given.

    Raises:
        DataError: a symbolic link leads round and round, or to a directory that was `walked`.
    """
    directory = root / key
    for above in pathlib.PurePath(key).parents:
        if directory.samefile(root / above):
            raise DataError(
                f"{directory} is a symbolic link that leads back up to {root / above}; remove it"
            )
    if walked is not None:
        walked.add(directory)
    for entry in _visible(directory):
        name = f"{key}/{entry.name}" if key else entry.name
        if _is_directory(entry):
            yield from image_keys(root, name, passed_over, walked)
        elif is_image(entry.name):
            yield name
        elif passed_over is not None and not entry.name.endswith(MASK_SUFFIX):
            passed_over[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1


def directories(path: pathlib.Path) -> list[str]:
    """Names of the directories in a directory, in their order; none where it is no directory."""
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in _visible(path) if _is_directory(entry))


def images_beside(path: pathlib.Path) -> list[str]:
    """Names of the images that lie in a directory itself."""
    return [e.name for e in _visible(path) if not _is_directory(e) and is_image(e.name)]


def say_passed_over(where: object, counts: Counter[str]) -> list[str]:
    """A line on the files that the walk passed over, if there are any.

    >>> say_passed_over("photos", Counter({".txt": 1, ".heic": 12}))
    ['photos: 13 files of other suffixes passed over (.heic: 12, .txt: 1)']
    """
    if not counts:
        return []
    each = ", ".join(f"{suffix}: {n}" for suffix, n in counts.most_common())
    return [f"{where}: {counts.total()} files of other suffixes passed over ({each})"]


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # such as a link to itself
        if is_image(entry.name):  # told, or skipped, like any other that cannot be read
            return False
        raise DataError(f"{entry.path} cannot be followed: {error.strerror}") from error


def _visible(path: pathlib.Path) -> list[os.DirEntry[str]]:
    # scandir learns from the listing itself what is a directory: no call per file.
    with os.scandir(path) as entries:
        visible = [e for e in entries if not e.name.startswith(".") and e.name not in _NO_IMAGES]
    return sorted(visible, key=lambda entry: entry.name)
