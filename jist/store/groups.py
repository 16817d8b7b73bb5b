"""Groups of stored arrays: a directory whose `zarr.json` says what it holds."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from jist.staging import write_text


class StoreError(Exception):
    """An array cannot be written, or is missing, incomplete or damaged."""


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed; jist itself may run from a checkout.

    >>> versions("there is no such package")
    {}
    """
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def open_group(
    path: pathlib.Path, attributes: Mapping[str, Any], *, holds: str, free: Collection[str] = ()
) -> None:
    """Makes a group, or checks that the existing one has the same attributes.

    Args:
        path: its directory; made if missing.
        attributes: its attributes.
        holds: what it holds, for the error message.
        free: attributes that may differ.

    Raises:
        ValueError: attributes differ (they are named).
    """
    if not (path / "zarr.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        write_attributes(path, attributes)
        return
    found = read_attributes(path)
    differ = [
        f"{name} is {found.get(name)!r} there and {wanted!r} here"
        for name, wanted in json.loads(json.dumps(attributes)).items()
        if name not in free and found.get(name) != wanted
    ]
    if differ:
        raise ValueError(
            f"out={path} holds other {holds}; choose another directory or remove it: "
            + "; ".join(differ)
        )


def read_attributes(path: str | os.PathLike) -> dict[str, Any]:
    """The attributes of a group.

    Raises:
        StoreError: its `zarr.json` is damaged.
        OSError: it cannot be read.
    """
    file = pathlib.Path(path) / "zarr.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["attributes"])
    except (ValueError, TypeError, KeyError):
        raise StoreError(f'{file} is damaged: no JSON object with "attributes"') from None


def write_attributes(path: pathlib.Path, attributes: Mapping[str, Any]) -> None:
    """Writes the attributes of a group, whole or not at all."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_text(path / "zarr.json", json.dumps(group, indent=2) + "\n")
