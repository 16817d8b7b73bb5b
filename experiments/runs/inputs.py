"""What heads are trained on: features of images, clips or vectors, by the name of a data set."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from flax import nnx
from rich.progress import Progress

from experiments.command.options import ImageOptions
from experiments.runs.clips import ClipInputs
from experiments.runs.images import ImageInputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.splits import Split
from experiments.runs.vectors import VectorInputs
from jist.data.vectors import have_many_labels, read_files
from jist.tasks import Task


class Inputs(Protocol):
    """The features of a run, whatever they are of."""

    @property
    def dim(self) -> int:
        """Numbers D in a feature vector."""
        ...

    @property
    def outputs(self) -> int:
        """Outputs C of a network: classes, or labels."""
        ...

    @property
    def network(self) -> Callable[..., nnx.Module]:
        """Makes the network that takes the features, from what `MLP` is made of."""
        ...

    @property
    def sparse_rows(self) -> bool:
        """Whether a network takes sparse rows."""
        ...

    @property
    def task(self) -> Task:
        """What networks are trained for."""
        ...

    @property
    def pinned(self) -> Mapping[str, Any]:
        """What must not change between two calls that work on one run: name -> SHA-256.

        Of other names what is only noted there.
        """
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What results say of the features, beside the name of the data set."""
        ...

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits: "train", "test" and, where the data bring one, "validation"."""
        ...

    @property
    def train_labels(self) -> tuple[int, np.ndarray | None]:
        """The number of training examples, and their classes [N] if they have one each.

        Raises:
            DataError: the data set is not there, or is none.
        """
        ...

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> Mapping[str, Split]:
        """The examples of every split; features are computed into `directory`, or read from it."""
        ...

    def renewed(self, mask: str, mask_ratio: float) -> Callable[[int], np.ndarray] | None:
        """Maps an epoch to the features [N, D] of the training examples in it.

        None if they are the same in every epoch: without random masks, and without augmentation.

        Raises:
            ValueError: the encoder cannot leave patches out.
        """
        ...


def open_inputs(options: ImageOptions) -> Inputs:
    """The inputs that the options name.

    Raises:
        ValueError: an unknown data set, or as `build_encoder`.
    """
    if options.dataset.startswith("speech:"):
        return ClipInputs(options)
    if options.dataset.startswith("features:"):
        path = options.dataset.removeprefix("features:")
        files = read_files(path, options.labels, options.base)
        kind = ManyLabelInputs if have_many_labels(files) else VectorInputs
        return kind(options, files)
    if options.dataset.startswith("xc:"):
        return ManyLabelInputs(options)
    return ImageInputs(options)
