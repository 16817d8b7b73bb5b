"""A run that was trained: its inputs and its heads, read back."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import nnx

from experiments.command.options import ImageOptions
from experiments.runs.directory import DATA_DIR, WORKING_DIRECTORY, check_pinned, read_part
from experiments.runs.heads import build_strategy
from experiments.runs.inputs import Inputs, open_inputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.plan import Plan, Training
from experiments.runs.vectors import NAMES_DIGEST, VectorInputs
from jist import strategies, trainer
from jist.label_probabilities import Scaling

AT_PATHS = ("folder", "masked", "features", "speech", "xc")  # data sets KIND:PATH


def located(config: Mapping[str, Any], images: ImageOptions) -> ImageOptions:
    """The options of a run's data and encoder, found from another working directory, too.

    Args:
        config: the `config.json` of the run.
        images: its options; their `data_dir` counts if there is one, else the run's.
    """
    there = pathlib.Path(config.get(WORKING_DIRECTORY, ""))
    if not pathlib.Path(images.encoder).exists() and (there / images.encoder).is_dir():
        images = dataclasses.replace(images, encoder=str(there / images.encoder))
    if images.data_dir is None:
        return dataclasses.replace(images, data_dir=_data_dir(config, images.dataset))
    return images


def _data_dir(config: Mapping[str, Any], dataset: str) -> pathlib.Path | None:
    """The `data_dir` that a run had or, if its data are there, its working directory."""
    there = pathlib.Path(config.get(WORKING_DIRECTORY, ""))
    if DATA_DIR in config:
        given = pathlib.Path(config[DATA_DIR]).expanduser()
        return there / given if (there / given).exists() else given
    kind, _, path = dataset.partition(":")
    pair = kind == "features" and not (there / path).exists()  # TRAIN,TEST
    parts = path.split(",") if pair else [path]
    found = kind in AT_PATHS and all((there / part).exists() for part in parts)
    return there if found else None


def restore_inputs(config: Mapping[str, Any], images: ImageOptions) -> Inputs:
    """What a run was trained on: its encoder, say; arguments as of `located`.

    Raises:
        ValueError: it has been replaced since.
    """
    inputs = open_inputs(images)
    if isinstance(inputs, VectorInputs | ManyLabelInputs) and NAMES_DIGEST not in config:
        # Runs from before names counted match features by their position.
        files = [dataclasses.replace(file, names=None) for file in inputs.opened]
        inputs = dataclasses.replace(inputs, files=files or None)
    check_pinned(config, inputs.pinned)
    return inputs


class Head(NamedTuple):
    """A trained head, or a whole network, with its deployed statistics.

    Attributes:
        model: the network.
        class_names: of its outputs; empty if they are labels that have numbers.
        temperature: by which its logits are divided; None if none was fitted.
        offset: what is then added to them, of many labels.
    """

    model: nnx.Module
    class_names: list[str]
    temperature: float | None
    offset: float = 0.0

    @property
    def scaling(self) -> Scaling | None:
        """Temperature and offset of many labels."""
        return None if self.temperature is None else Scaling(self.temperature, self.offset)


def restore_head(
    run_dir: pathlib.Path, plan: Plan, training: Training, inputs: Inputs, which: str
) -> Head:
    """The trained and calibrated head of a run.

    Args:
        run_dir: the run directory.
        plan: its plan.
        training: which of the plan's trainings.
        inputs: the run's inputs.
        which: "last", or "best" by the task's metric: on the validation examples if the run has
            any, else on the test examples.

    Raises:
        FileNotFoundError: no training of the run has been finished yet.
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    class_names = read_part(run_dir, "summary.json")["class_names"]
    outputs = len(class_names) or inputs.outputs
    strategy = strategy_of(inputs, outputs, plan, training, devices=1)
    checkpoints = run_dir / "checkpoints" / training.name
    found = trainer.restore_calibrated(
        strategy, checkpoints, which, task=inputs.task, validation=plan.validated
    )
    return Head(found.model, class_names, found.temperature, found.offset)


def strategy_of(
    inputs: Inputs, outputs: int, plan: Plan, training: Training, devices: int | None
) -> strategies.Strategy:
    """The untrained network of a training, and the strategy that trains it.

    Raises:
        ValueError: as `build_strategy`.
    """
    return build_strategy(
        inputs.dim,
        outputs,
        plan.head_of(training),
        training.how,
        plan.images.seed,
        devices,
        network=inputs.network,
        task=inputs.task,
    )
