"""Feature stores that many runs and processes share."""

import pathlib
import re
import time
from collections.abc import Callable

import jax

from experiments.command.options import ImageOptions
from jist import features
from jist.features import Features

SPLITS = ("train", "test")


def store_paths(options: ImageOptions, directory: pathlib.Path, of: str) -> dict[str, pathlib.Path]:
    """The stores of both splits, named by data set, split and what else features depend on."""
    slug = re.sub(r"\W+", "-", options.dataset.rstrip("/").rsplit("/", 1)[-1])
    return {split: directory / f"{slug}-{split}-{of}" for split in SPLITS}


def shared(
    paths: dict[str, pathlib.Path], extract: Callable[[str, pathlib.Path], None]
) -> dict[str, Features]:
    """The features at some paths, extracted by the first of many processes.

    The others wait for the files, which are on a file system that all share: a collective operation
    would time out after half a minute.
    """
    if jax.process_index() == 0:
        for split, path in paths.items():
            extract(split, path)
    while True:
        try:
            return {split: features.load(path) for split, path in paths.items()}
        except FileNotFoundError:
            if jax.process_index() == 0:
                raise
            time.sleep(1)
