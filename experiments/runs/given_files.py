"""The files that a command line names, and those in the folders that it names."""

import pathlib
import sys
from collections import Counter
from collections.abc import Callable

from experiments.command.errors import UsageError
from jist.data import IMAGE_SUFFIXES, image_keys, is_image, say_passed_over


def image_paths(given: tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
    """The given image files, and those in the given folders, as data sets find them.

    Raises:
        ValueError: a path does not exist, or there is no image.
    """
    paths = []
    for path in (pathlib.Path(str(path).removeprefix("images:")) for path in given):
        if path.is_dir():
            counts: Counter[str] = Counter()
            paths += [path / key for key in image_keys(path, passed_over=counts)]
            for remark in say_passed_over(path, counts):
                print(f"note: {remark}", file=sys.stderr)
        else:
            paths += files_in((path,), is_image, "image")
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"images holds no image ({kinds}), given {[str(p) for p in given]}")
    return paths


def files_in(
    given: tuple[pathlib.Path, ...], wanted: Callable[[str], bool], kind: str
) -> list[pathlib.Path]:
    """The given files, and those in the given folders that are of a kind by their names.

    Raises:
        ValueError: a path does not exist, or there is no such file.
    """
    paths = []
    for path in given:
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            paths += [path for path in inside if path.is_file() and wanted(path.name)]
        elif path.is_file():
            paths.append(path)
        else:
            raise UsageError(f"images must be files or folders, {path} does not exist")
    if not paths:
        raise UsageError(f"images holds no {kind}, given {[str(p) for p in given]}")
    return paths
