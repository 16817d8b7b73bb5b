"""Encoders by their name on the Hugging Face hub: converted once, and kept where the hub keeps its.

`hf:facebook/vit-mae-base` is the revision that is current when it is first asked for, and the same
from then on; `hf:facebook/vit-mae-base@REVISION` is that branch, tag or commit. Conversions lie in
the directory that the hub gives to libraries like this one, `assets/jist/encoders` in HF_HOME
(`~/.cache/huggingface`); removing one has it converted anew.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator

from conversion.convert import convert
from conversion.overrides import Overrides

PREFIX = "hf:"
FILES = "config.json", "encoder.safetensors"


def is_hub_name(name: str) -> bool:
    """Whether a name begins as those of the hub."""
    return name.startswith(PREFIX)


def cache_of(name: str) -> pathlib.Path:
    """Where the conversion of an encoder of the hub lies, or will lie.

    Args:
        name: hf:OWNER/NAME or hf:OWNER/NAME@REVISION.

    Raises:
        ValueError: it is another name.
    """
    found = re.fullmatch(rf"{PREFIX}([\w.-]+)/([\w.-]+)(?:@([\w.-]+))?", name)
    if found is None:
        raise ValueError(
            f"encoder must be {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION, got {name!r}"
        )
    parts = [part for part in found.groups() if part is not None]
    return _assets() / "jist" / "encoders" / "--".join(parts)


def _assets() -> pathlib.Path:
    """As `huggingface_hub.cached_assets_path`, without that package once all is converted."""
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{general}/huggingface"
    return pathlib.Path(os.environ.get("HF_ASSETS_CACHE") or f"{home}/assets").expanduser()


def converted(name: str, report: Callable[[str], None] = print) -> pathlib.Path:
    """The directory of an encoder of the hub, converted now if it has not been before.

    Of several processes that ask at once one converts, and the others wait for it.

    Args:
        name: as of `cache_of`.
        report: is told that it is converted, and any warning.

    Raises:
        ValueError: it is no such name.
        ConversionError: there is neither a network nor a cache, or its weights are not known here.
        OSError: the cache cannot be written.
    """
    directory = cache_of(name)
    if _is_there(directory):
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _alone(directory.with_name(f".{directory.name}.lock")):
        if not _is_there(directory):
            report(f"{name} is new here: it is fetched and converted into {directory}")
            _convert(name, directory, report)
    return directory


def _is_there(directory: pathlib.Path) -> bool:
    return all((directory / file).is_file() for file in FILES)


def _convert(name: str, directory: pathlib.Path, report: Callable[[str], None]) -> None:
    def warnings(line: str) -> None:
        if line.startswith("warning"):
            report(line)

    try:
        convert(name.removeprefix(PREFIX), directory, Overrides(), report=warnings)
    except OSError:
        # Where the file system knows no locks another process may have been faster.
        if not _is_there(directory):
            raise


@contextlib.contextmanager
def _alone(lock: pathlib.Path) -> Iterator[None]:
    """Waits until no other process is inside; where there are no locks nobody waits."""
    with lock.open("w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def revision_of(directory: pathlib.Path) -> str | None:
    """The commit of the hub that a directory was converted from; None of any other source.

    Raises:
        OSError: there is no `config.json` in it.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config.get("source", {}).get("revision")
