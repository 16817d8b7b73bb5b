"""Files that are whole or not there: written under another name, then renamed."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Where to write a file that takes the place of `path` if all goes well, and else goes away.

    The name is nobody else's, so programs that write one file at once do not meet: the last wins.

    Args:
        path: where the file is wanted; its directory must exist.
    """
    path = pathlib.Path(path)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with replaced(path) as staging:
        staging.write_text(text, encoding="utf-8")
