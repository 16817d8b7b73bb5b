"""Sparse rows with many labels, from the text of the Extreme Classification Repository."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import Progress

from experiments.command.options import ImageOptions
from experiments.runs.splits import SparseSplit
from experiments.runs.stores import SPLITS
from jist.data.sparse import SparseExamples, load_xc
from jist.models import SparseMLP
from jist.ragged import Ragged
from jist.tasks import Task, inverse_propensities, multilabel, prior_logits


@dataclasses.dataclass(frozen=True)
class SparseInputs:
    """Sparse rows as they are (VLDB 2022, §5: Amazon-670k)."""

    options: ImageOptions

    @functools.cached_property
    def _splits(self) -> dict[str, SparseExamples]:
        path = self.options.dataset.removeprefix("xc:")
        return {s: load_xc(path, s, skip_empty=self.options.skip_empty) for s in SPLITS}

    @property
    def dim(self) -> int:
        """Number of features F."""
        return self._splits["train"].feature_count

    @property
    def outputs(self) -> int:
        """Number of labels L."""
        return self._splits["train"].label_count

    @property
    def network(self) -> Callable[..., nnx.Module]:
        """A network whose output begins with the labels' frequencies."""
        return self._network

    @functools.cached_property
    def _network(self) -> Callable[..., nnx.Module]:
        train, options = self._splits["train"], self.options

        def network(widths: tuple[int, ...], **how: Any) -> nnx.Module:
            model = SparseMLP(widths, entry_dropout=options.entry_dropout, **how)
            if options.multilabel_loss == "sigmoid":
                assert model.last.bias is not None  # every output layer has one
                bias = prior_logits(train.label_frequencies, len(train))
                model.last.bias[...] = jnp.asarray(bias)
            return model

        return network

    @property
    def task(self) -> Task:
        """Ranking labels; their propensities are of all training examples."""
        return self._task

    @functools.cached_property
    def _task(self) -> Task:
        train = self._splits["train"]
        weights = inverse_propensities(train.label_frequencies, len(train))
        return multilabel(inverse_propensities=weights, loss=self.options.multilabel_loss)

    @property
    def pinned(self) -> Mapping[str, str]:
        """The digest of the examples: files may be written anew under their names."""
        found = {split: examples.describe() for split, examples in self._splits.items()}
        return {f"{split}_examples_sha256": found[split]["examples_sha256"] for split in SPLITS}

    @property
    def facts(self) -> Mapping[str, Any]:
        """There is no encoder; how networks are trained on sparse rows."""
        options = self.options
        how = {"multilabel_loss": options.multilabel_loss, "entry_dropout": options.entry_dropout}
        return {"encoder": "none"} | how

    @property
    def train_labels(self) -> tuple[int, None]:
        """The number of training examples, which have no classes."""
        return len(self._splits["train"]), None

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> dict[str, SparseSplit]:
        """The rows; nothing is written."""
        return {split: SparseSplit(examples) for split, examples in self._splits.items()}

    def renewed(self, mask: str, mask_ratio: float) -> Callable[[int], np.ndarray] | None:
        """Rows stay the same."""
        return None

    def read(self, path: pathlib.Path) -> tuple[list[str], Ragged]:
        """The test rows of another directory, and the name of each: file and row."""
        found = load_xc(path, "test")
        return [f"{path}:{row}" for row in found.numbers], found.features
