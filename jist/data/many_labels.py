"""Examples with any number of labels each, whatever their features are."""

import abc
import dataclasses
import functools
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int, UInt32

from jist.data.dataset import example_id
from jist.data.holdout import held_out
from jist.ragged import Ragged

Some = TypeVar("Some", bound="ManyLabelled")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ManyLabelled(abc.ABC):
    """Examples with any number of labels each.

    Attributes:
        name: what they were loaded by.
        split: "train", "test" or "validation".
        feature_count: number of features F.
        labels: rows of i32 with padding -1.
        label_count: number of labels L.
        label_names: of the labels, if they have any.
        numbers: which examples of the file these are, counted from 0 [N].
        left_out: how many examples were left out because they had no feature or no label.
    """

    name: str
    split: str
    feature_count: int
    labels: Ragged
    label_count: int
    label_names: tuple[str, ...] = ()
    numbers: Int[np.ndarray, " examples"]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def describe(self) -> dict[str, Any]:
        """Description of the data, as JSON; equal for equal examples."""
        return {
            "dataset": self.name,
            "split": self.split,
            "examples": len(self),
            "features": self.feature_count,
            "labels": self.label_count,
            "left_out": self.left_out,
            **self._digests(),
        }

    @abc.abstractmethod
    def _digests(self) -> dict[str, str]:
        """SHA-256 of the examples, by names that end in `_sha256`."""

    @abc.abstractmethod
    def rows(self: Some, which: Int[np.ndarray, " some"]) -> Some:
        """Some of the examples."""

    @property
    def label_frequencies(self) -> Int[np.ndarray, " labels"]:
        """How many of the examples have each label [L]."""
        return np.bincount(self.labels.entries, minlength=self.label_count)

    @functools.cached_property
    def example_ids(self) -> UInt32[np.ndarray, " examples"]:
        """Stable ids [N]: of the split and the place in the file."""
        return np.array([example_id(key) for key in self._keys()], np.uint32)

    def without_empty(self: Some) -> Some:
        """Those that have a feature and a label; the others are counted in `left_out`."""
        kept = np.flatnonzero(self._has_features() & (np.diff(self.labels.offsets) > 0))
        return dataclasses.replace(self.rows(kept), left_out=len(self) - len(kept))

    def held_out(self, share: float, seed: int) -> Bool[np.ndarray, " examples"]:
        """Which examples are held out, as by `jist.data.holdout` of those of one class.

        Args:
            share: share that is held out, in (0, 1).
            seed: decides which.

        Raises:
            ValueError: a share outside (0, 1).
            DataError: there is a single example.
        """
        one_class = np.zeros(len(self), np.int32)
        return held_out(self._keys(), one_class, ("any",), share=share, seed=seed)

    def hold_out(self: Some, share: float, seed: int) -> tuple[Some, Some]:
        """The examples that are left to train on, and those held out; as `held_out`."""
        held = self.held_out(share, seed)
        return self.rows(np.flatnonzero(~held)), self.rows(np.flatnonzero(held))

    def _has_features(self) -> Bool[np.ndarray, " examples"]:
        return np.ones(len(self), bool)

    def _keys(self) -> list[str]:
        return [f"{self.split}/{number}" for number in self.numbers.tolist()]
