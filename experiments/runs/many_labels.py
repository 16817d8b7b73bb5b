"""Examples with many labels: the Repository's text, matrices of SciPy, and dense vectors."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import Progress

from experiments.command.options import ImageOptions
from experiments.runs.splits import ManyLabelSplit, many_label_splits
from experiments.runs.stores import SPLITS
from experiments.runs.vectors import InFiles, check_of_rows, hold_sparse_rows, of_rows
from jist.data import DataError
from jist.data.sparse import SparseExamples, load_xc, load_xc_features
from jist.data.vectors import Columns, LabelledVectors, many_labelled, splits_in
from jist.models import MLP, SparseMLP
from jist.ragged import Ragged
from jist.tasks import Task, inverse_propensities, multilabel, prior_outputs


@dataclasses.dataclass(frozen=True)
class ManyLabelInputs(InFiles):
    """Vectors as they are, sparse ones above all (VLDB 2022, §5: Amazon-670k).

    Attributes:
        options: the options.
        files: what the path of `features:PATH` holds; None of `xc:PATH`.

    Raises:
        UsageError: an option of sparse rows, and the vectors are dense.
    """

    options: ImageOptions
    files: list[Columns] | None = None

    @property
    def sparse_rows(self) -> bool:
        """Whether the vectors are sparse rows, as those of `xc:PATH` always are."""
        return self.files is None or hold_sparse_rows(self.files)

    def __post_init__(self) -> None:
        check_of_rows(self.options, sparse=self.sparse_rows)

    @property
    def opened(self) -> Sequence[Columns]:
        """The files of `features:PATH`."""
        return self.files or []

    @functools.cached_property
    def _splits(self) -> Mapping[str, SparseExamples | LabelledVectors]:
        options = self.options
        how: dict[str, Any]
        if self.files is None:
            path = options.dataset.removeprefix("xc:")
            how = {"skip_empty": options.skip_empty, "base": options.base}
            return {s: load_xc(path, s, **how) for s in self.split_names}
        how = {"seed": options.seed, "test_share": options.test_share}
        found = {s: many_labelled(self.files, options.dataset, s, **how) for s in self.split_names}
        return {s: of.without_empty() if options.skip_empty else of for s, of in found.items()}

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that there are."""
        return SPLITS if self.files is None else splits_in(self.files)

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
            of = SparseMLP if self.sparse_rows else MLP
            own = of_rows(options) if self.sparse_rows else {}
            model = of(widths, negatives=options.negatives, **own, **how)
            assert model.last.bias is not None  # every output layer has one
            loss = options.multilabel_loss
            bias = prior_outputs(train.label_frequencies, len(train), loss)
            model.last.bias[...] = jnp.asarray(bias)
            if loss == "squared":  # what the others add at first would have to be unlearned
                model.last.kernel[...] = jnp.zeros_like(model.last.kernel[...])
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
    def pinned(self) -> Mapping[str, Any]:
        """The digests of the examples: files may be written anew under their names."""
        found = {split: examples.describe() for split, examples in self._splits.items()}
        return self.pinned_names | {
            f"{split}_{name}": digest
            for split, of in found.items()
            for name, digest in of.items()
            if name.endswith("_sha256")
        }

    @property
    def facts(self) -> Mapping[str, Any]:
        """There is no encoder; how networks are trained on many labels, and on sparse rows."""
        loss = {name: getattr(self.options, name) for name in ("multilabel_loss", "negatives")}
        return {"encoder": "none"} | loss | (of_rows(self.options) if self.sparse_rows else {})

    @property
    def train_labels(self) -> tuple[int, None]:
        """The number of training examples, which have no classes.

        Raises:
            DataError: none of them has a label.
        """
        train = self._splits["train"]
        if not len(train.labels.entries):
            raise DataError(
                f"{self.options.dataset}: none of the {len(train)} training examples has a label"
            )
        return len(train), None

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> dict[str, ManyLabelSplit]:
        """The rows; nothing is written."""
        self.say_remarks()
        return many_label_splits(self._splits, self.options.resident_gb)

    def read(self, path: pathlib.Path) -> tuple[list[str], np.ndarray | Ragged]:
        """The test rows of another directory, or the vectors of a file; and the name of each row.

        Raises:
            DataError: they cannot be read, or have other features than the run's.
        """
        if self.takes(path.name) or not self.sparse_rows:
            return self.read_vectors(path)
        rows, count = load_xc_features(path, "test")
        if count != self.dim:
            raise DataError(f"{path} has {count} features, the run's {self.dim}")
        return [f"{path}:{row}" for row in range(len(rows))], rows
