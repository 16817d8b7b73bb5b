"""Features of one class each, in stores that many runs and processes share."""

import abc
import pathlib
import re
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

from experiments.command.options import ImageOptions
from experiments.runs.heads import TASK
from experiments.runs.splits import DenseSplit, dense_splits
from jist import features
from jist.data import Examples, check_learnable
from jist.models import MLP
from jist.store import StoreError

SPLITS = ("train", "test")


class Classified(abc.ABC):
    """What inputs have in common whose examples have one class each."""

    task = TASK

    @property
    def sparse_rows(self) -> bool:
        """No, but of own vectors that are sparse."""
        return False

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that there are: training, test and, where the data bring them, validation."""
        return SPLITS

    @property
    def network(self) -> Callable[..., nnx.Module]:
        """Makes a network for vectors."""
        return MLP

    @abc.abstractmethod
    def examples(self, split: str) -> Examples:
        """The examples of a split, without their features."""

    @property
    def outputs(self) -> int:
        """Number of classes C."""
        return len(self.examples("train").class_names)

    @property
    def train_labels(self) -> tuple[int, np.ndarray]:
        """The number of training examples, and their classes [N].

        Raises:
            DataError: as `check_learnable`.
        """
        train = self.examples("train")
        others = [self.examples(split) for split in self.split_names if split != "train"]
        check_learnable(train, others)
        return len(train), train.labels


def store_paths(
    options: ImageOptions, directory: pathlib.Path, of: str, splits: Sequence[str] = SPLITS
) -> dict[str, pathlib.Path]:
    """The stores of the splits, named by data set, split and what else features depend on."""
    name = options.dataset.rstrip("/")
    # The end of a path, but all of a name with a configuration, which others may have, too.
    slug = re.sub(r"\W+", "-", name if name.startswith("tfds:") else name.rsplit("/", 1)[-1])
    return {split: directory / f"{slug}-{split}-{of}" for split in splits}


def shared(
    paths: dict[str, pathlib.Path],
    examples: Callable[[str], Examples],
    extract: Callable[[str, pathlib.Path], None],
    resident_gb: float,
) -> dict[str, DenseSplit]:
    """The features at some paths, extracted by the first of many processes.

    All splits are opened first: what is wrong with the last is told before hours go into the first.

    The others wait for the files, which are on a file system that all share: a collective operation
    would time out after half a minute. What is damaged they find whole once it is extracted again.
    """
    if jax.process_index() == 0:
        for split in paths:
            examples(split)
        for split, path in paths.items():
            extract(split, path)
    while True:
        try:
            found = {split: features.load(path) for split, path in paths.items()}
            return dense_splits(found, resident_gb)
        except (FileNotFoundError, StoreError):
            if jax.process_index() == 0:
                raise
            time.sleep(1)
