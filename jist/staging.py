"""Atomic writing of files: written under a temporary name, then renamed."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
    """Adds the file name to errors of writing: those raised midway (full disk) do not have it.

    Args:
        path: the file.

    Raises:
        OSError: what the body raised, with a file name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary path to write to; it replaces `path` on success and is removed on failure.

    The temporary name is unique, so programs that write one file at once do not clash: the last one
    wins.

    Args:
        path: the final path of the file; its directory must exist.

    Raises:
        OSError: it cannot be written; the file is named.
    """
    path = pathlib.Path(path)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with named(path):
            yield staging
            staging.replace(path)
    except OSError as error:
        if error.filename != str(staging):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error  # not the temporary
    finally:
        staging.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all; one that holds the text is left alone.

    So what is complete can be used where nothing can be written, as on a read-only mount.
    """
    with contextlib.suppress(OSError):
        if pathlib.Path(path).read_bytes() == text.encode("utf-8"):
            return
    with replaced(path) as staging:
        staging.write_text(text, encoding="utf-8")
