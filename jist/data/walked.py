"""Directories that a data set takes, each once."""

import pathlib

from jist.data.errors import DataError


class Walked:
    """Refuses a directory that was taken before under another name, by a symbolic link."""

    def __init__(self) -> None:
        self._paths: dict[tuple[int, int], pathlib.Path] = {}

    def add(self, directory: pathlib.Path) -> None:
        """Notes a directory by its device and inode.

        Raises:
            DataError: it has been added.
        """
        status = directory.stat()
        before = self._paths.setdefault((status.st_dev, status.st_ino), directory)
        if before != directory:
            raise DataError(
                f"{before} and {directory} are one directory, by a symbolic link: its examples "
                "would count twice; remove one of them"
            )
