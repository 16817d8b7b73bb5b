"""Encoders that come with the package; names give model size, training data and duration."""

import os
import pathlib

DIRECTORY = pathlib.Path(__file__).parent / "encoders"


def shipped_encoders() -> tuple[str, ...]:
    """Names of the encoders that come with the package."""
    return tuple(sorted(file.parent.name for file in DIRECTORY.glob("*/config.json")))


def locate(name: str | os.PathLike) -> pathlib.Path:
    """The directory of an encoder: the one of that path, else the shipped one of that name."""
    path = pathlib.Path(name)
    return DIRECTORY / path if not path.exists() and str(name) in shipped_encoders() else path
