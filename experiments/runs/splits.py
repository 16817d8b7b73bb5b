"""A split of a run's data: its examples, labels and what is noted about it."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Float

from jist.data import OnDisk
from jist.data.holdout import held_out, spared
from jist.data.sparse import SparseExamples
from jist.data.vectors import LabelledVectors, Vectors
from jist.features import Features
from jist.ragged import Ragged
from jist.tasks import Examples


class Split(Protocol):
    """Examples to train or to test on."""

    @property
    def attributes(self) -> dict[str, Any]:
        """What is noted about them: masks, class names, what was left out."""
        ...

    @property
    def label(self) -> np.ndarray | None:
        """The class of every example [N]; None if an example may have several labels."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether features stay on disk and are read when they are used."""
        ...

    def __len__(self) -> int: ...

    def examples(self, rows: np.ndarray | None = None) -> Examples:
        """Examples as the task takes them: all, or those where `rows`, bool [N], is true."""
        ...

    def held_out(self, share: float, seed: int) -> np.ndarray:
        """Which examples are held out to choose the epoch, bool [N].

        Args:
            share: share of each class, in (0, 1).
            seed: decides which.

        Raises:
            DataError: a class has a single example.
        """
        ...


class ClassSplit(abc.ABC):
    """Examples with one class each."""

    streamed: bool = False

    @property
    @abc.abstractmethod
    def attributes(self) -> dict[str, Any]:
        """What is noted about them."""

    @property
    @abc.abstractmethod
    def label(self) -> np.ndarray:
        """The classes [N]."""

    @property
    @abc.abstractmethod
    def example_ids(self) -> np.ndarray:
        """Stable ids [N]."""

    @abc.abstractmethod
    def examples(self, rows: np.ndarray | None = None) -> Examples:
        """{"x", "y"}: all, or those where `rows`, bool [N], is true."""

    def __len__(self) -> int:
        return len(self.label)

    def held_out(self, share: float, seed: int) -> np.ndarray:
        """The same share of every class."""
        names = self.attributes["class_names"]
        return held_out(self._keys, self.label, names, share=share, seed=seed)

    def spared(self, share: float, seed: int) -> np.ndarray:
        """As `held_out`, but of a small class possibly none."""
        return spared(self._keys, self.label, share=share, seed=seed)

    @property
    def _keys(self) -> list[str]:
        # Other keys than those that decide the test split: the two choices are independent.
        return [f"validation/{example_id}" for example_id in self.example_ids]


@dataclasses.dataclass(frozen=True)
class DenseSplit(ClassSplit):
    """Feature vectors with one class each.

    Attributes:
        features: the vectors.
        streamed: whether they stay on disk.
    """

    features: Features
    streamed: bool = False

    @functools.cached_property
    def _on_disk(self) -> OnDisk:
        return self.features.on_disk()

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the feature store."""
        return self.features.attributes

    @property
    def label(self) -> np.ndarray:
        """The classes [N]."""
        return self.features.label

    @property
    def example_ids(self) -> np.ndarray:
        """Those of the feature store [N]."""
        return self.features.example_id

    def examples(self, rows: np.ndarray | None = None) -> Examples:
        """Features {"x": [N, D], "y": i32 [N]}."""
        rows = np.ones(len(self), bool) if rows is None else rows
        y = jax.device_put(self.features.label[rows])
        if self.streamed:
            return {"x": self._on_disk.some(rows), "y": y}
        x = self.features.cls
        return {"x": jax.device_put(x if rows.all() else x[rows]), "y": y}


def dense_splits(found: Mapping[str, Features], resident_gb: float) -> dict[str, DenseSplit]:
    """The splits of a data set, all in memory or all on disk.

    Args:
        found: the vectors of each.
        resident_gb: if together they take more GB than this, they stay on disk.
    """
    streamed = sum(of.on_disk().nbytes for of in found.values()) > resident_gb * 1e9
    return {name: DenseSplit(of, streamed) for name, of in found.items()}


@dataclasses.dataclass(frozen=True)
class SparseClassSplit(ClassSplit):
    """Sparse vectors with one class each.

    Attributes:
        vectors: the vectors and their classes.
    """

    vectors: Vectors

    @functools.cached_property
    def _rows(self) -> Ragged:
        rows = self.vectors.sparse()
        assert rows is not None
        return rows

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the vectors."""
        return self.vectors.describe()

    @property
    def label(self) -> np.ndarray:
        """The classes [N]."""
        return self.vectors.labels

    @property
    def example_ids(self) -> np.ndarray:
        """Those of the vectors [N]."""
        return self.vectors.example_ids

    def examples(self, rows: np.ndarray | None = None) -> Examples:
        """Rows of unequal length {"x": {"indices", "values"}, "y": i32 [N]}."""
        some = np.arange(len(self)) if rows is None else np.flatnonzero(rows)
        return {"x": self._rows.rows(some), "y": jax.device_put(self.label[some])}


@dataclasses.dataclass(frozen=True)
class ManyLabelSplit:
    """Rows with any number of labels each.

    Attributes:
        found: the rows, sparse or dense.
        streamed: whether dense ones stay on disk.
    """

    found: SparseExamples | LabelledVectors
    streamed: bool = False
    label = None

    @property
    def attributes(self) -> dict[str, Any]:
        """What labels are called; those of many data sets have numbers alone."""
        return {"class_names": [*self.found.label_names], "left_out": self.found.left_out}

    def __len__(self) -> int:
        return len(self.found)

    @functools.cached_property
    def _vectors(self) -> Float[np.ndarray, "examples dim"]:
        assert isinstance(self.found, LabelledVectors)
        return self.found.vectors.read()

    def examples(self, rows: np.ndarray | None = None) -> Examples:
        """{"x", "y"}: sparse rows {"indices", "values"} or vectors; and rows of labels."""
        every = np.ones(len(self), bool) if rows is None else rows
        which = np.flatnonzero(every)
        if isinstance(self.found, SparseExamples):
            return self.found.rows(which).arrays
        if self.streamed:
            x = self.found.vectors.on_disk().some(every)
        else:
            x = jax.device_put(self._vectors if every.all() else self._vectors[which])
        return {"x": x, "y": self.found.labels.rows(which)}

    def held_out(self, share: float, seed: int) -> np.ndarray:
        """A share of all examples."""
        return self.found.held_out(share, seed)

    def spared(self, share: float, seed: int) -> np.ndarray:
        """A share of all examples, too: they are few, or there are none at all."""
        return self.found.held_out(share, seed)


def many_label_splits(
    found: Mapping[str, SparseExamples | LabelledVectors], resident_gb: float
) -> dict[str, ManyLabelSplit]:
    """The splits of a data set, as `dense_splits`; sparse rows are always in memory."""
    dense = [of.vectors for of in found.values() if isinstance(of, LabelledVectors)]
    streamed = sum(of.on_disk().nbytes for of in dense) > resident_gb * 1e9
    return {name: ManyLabelSplit(of, streamed) for name, of in found.items()}
