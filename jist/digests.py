"""Digests of a directory's files, kept beside them: damage is found before a file is used.

`digests.json` maps the path of every file, relative to the directory, to its SHA-256. A directory
of an earlier version has no digests, and is read unchecked.
"""

import hashlib
import json
import pathlib

from jist.staging import write_text

FILE = "digests.json"


class DamagedFileError(Exception):
    """A file is missing, or is not what was written."""


def write_digests(directory: pathlib.Path) -> None:
    """Notes the digests of all files below a directory, whole or not at all.

    Raises:
        OSError: a file cannot be read, or the digests cannot be written.
    """
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != FILE)
    digests = {str(path.relative_to(directory)): _sha256(path) for path in sorted(files)}
    write_text(directory / FILE, json.dumps(digests, indent=2) + "\n")


def has_digests(directory: pathlib.Path) -> bool:
    """Whether the digests of a directory's files were noted."""
    return (directory / FILE).exists()


def check_digests(directory: pathlib.Path) -> None:
    """Checks that every file is there, and is what was written.

    Raises:
        DamagedFileError: one is not; it is named. Or the digests themselves are damaged.
        OSError: a file cannot be read.
    """
    try:
        digests = dict(json.loads((directory / FILE).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DamagedFileError(f"{directory / FILE} is damaged: {error}") from None
    for name, expected in digests.items():
        path = directory / name
        if not path.is_file():
            raise DamagedFileError(f"{path} is missing")
        if _sha256(path) != expected:
            raise DamagedFileError(f"{path} is not what was written: its SHA-256 differs")


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
