"""A run that was trained, whatever it trained: heads on features, or networks of whole images."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

from experiments.command.options import ImageOptions
from experiments.runs.convolutional import ConvnetOptions, build_network, build_training
from experiments.runs.directory import read_part
from experiments.runs.end_to_end import EndToEndOptions, build_task, read_options
from experiments.runs.finetuning import (
    FinetuneOptions,
    build_classifier,
    build_finetuning,
    finetuning_task,
)
from experiments.runs.inputs import Inputs
from experiments.runs.masks import like_masked
from experiments.runs.network_images import NetworkInputs
from experiments.runs.plan import Plan, Training
from experiments.runs.restored import Head, located, restore_head, restore_inputs
from jist import strategies, trainer


class TrainedRun(Protocol):
    """A run directory, ready to be used."""

    @property
    def images(self) -> ImageOptions:
        """What it was trained on, without a masking ratio."""
        ...

    @property
    def inputs(self) -> Inputs | NetworkInputs:
        """The same, opened."""
        ...

    @property
    def names(self) -> list[str]:
        """Its trainings, in the order of their plan."""
        ...

    @property
    def validated(self) -> bool:
        """Whether held-out training examples chose the best epoch."""
        ...

    def is_done(self, name: str) -> bool:
        """Whether a training has come to its end."""
        ...

    def workers(self, name: str) -> int:
        """How many workers trained it."""
        ...

    def ratio(self, name: str) -> float:
        """The masking ratio that it was trained with; 0 where masks are natural."""
        ...

    @property
    def max_missing(self) -> float:
        """The share of a visible patch that might be missing in training."""
        ...

    def restore(self, name: str, which: str) -> Head:
        """Its network at a checkpoint, "last" or "best".

        Raises:
            FileNotFoundError: no training of the run has been finished yet.
            CheckpointError: there is no checkpoint, or it cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class HeadRun:
    """Heads on features; a `TrainedRun`.

    Attributes:
        run_dir: the run directory.
        plan: its plan.
        images: the images' options, found from any working directory.
        inputs: the features' origin.
    """

    run_dir: pathlib.Path
    plan: Plan
    images: ImageOptions
    inputs: Inputs

    @functools.cached_property
    def _trainings(self) -> dict[str, Training]:
        return {training.name: training for training in self.plan.trainings}

    @functools.cached_property
    def _results(self) -> dict[str, dict[str, Any]]:
        return {r["run"]: r for r in read_part(self.run_dir, "summary.json")["results"]}

    @functools.cached_property
    def _masks(self) -> dict[str, Any]:
        return like_masked(self.images)

    @property
    def names(self) -> list[str]:
        """Its trainings, in the order of the plan."""
        return [*self._trainings]

    @property
    def validated(self) -> bool:
        """Whether held-out training examples chose the best epoch."""
        return self.plan.validated

    def is_done(self, name: str) -> bool:
        """Whether a training has a result after all its epochs."""
        return self.plan.is_done(self._trainings[name], self._results)

    def workers(self, name: str) -> int:
        """How many workers trained it."""
        return self._trainings[name].how.workers

    def ratio(self, name: str) -> float:
        """The masking ratio that it was trained with, be it that of a masked data set."""
        return self._masks.get("mask_ratio") or self._trainings[name].mask_ratio

    @property
    def max_missing(self) -> float:
        """The share of a visible patch that might be missing, be it of a masked data set."""
        return self._masks.get("max_missing", self.images.max_missing)

    def restore(self, name: str, which: str) -> Head:
        """Its head at a checkpoint; errors as `restore_head`."""
        return restore_head(self.run_dir, self.plan, self._trainings[name], self.inputs, which)


@dataclasses.dataclass(frozen=True)
class NetworkRun:
    """One network, trained end to end on whole images; a `TrainedRun`.

    Attributes:
        options: of its script.
        inputs: the images.
        strategy: that trained it.
        class_names: of its outputs.
        validated: whether a validation split chose the best epoch.
    """

    options: FinetuneOptions | ConvnetOptions
    inputs: NetworkInputs
    strategy: strategies.Strategy
    class_names: list[str]
    validated: bool

    @property
    def images(self) -> ImageOptions:
        """What it was trained on."""
        return self.inputs.options

    @property
    def names(self) -> list[str]:
        """The one training."""
        return ["finetune" if isinstance(self.options, FinetuneOptions) else "convnet"]

    def is_done(self, name: str) -> bool:
        """A run without a result cannot be opened."""
        return True

    def workers(self, name: str) -> int:
        """How many workers trained it."""
        return self.strategy.workers

    def ratio(self, name: str) -> float:
        """The masking ratio that it was trained with."""
        return self.options.ratio if isinstance(self.options, FinetuneOptions) else 0.0

    @property
    def max_missing(self) -> float:
        """The share of a visible patch that might be missing."""
        return self.images.max_missing

    def restore(self, name: str, which: str) -> Head:
        """The network at a checkpoint; errors as `jist.trainer.restore_calibrated`."""
        found = trainer.restore_calibrated(
            self.strategy,
            self.options.run_dir / "checkpoints",
            which,
            task=self.inputs.task,
            validation=self.validated,
        )
        return Head(found.model, self.class_names, found.temperature)


def open_run(run_dir: pathlib.Path, data_dir: pathlib.Path | None = None) -> TrainedRun:
    """A run of any script that trains classifiers.

    Args:
        run_dir: the run directory.
        data_dir: where its images are, as of the options.

    Raises:
        UsageError: it was written by a script that trains none.
        FieldError: a field of its config.json is missing or of another type.
        FileNotFoundError: no run directory, or none of a finished network.
    """
    config = read_part(run_dir, "config.json")
    if config.get("experiment") in NETWORKS:
        return NETWORKS[config["experiment"]](run_dir, config, data_dir)
    plan = Plan.from_config(config)
    images = located(config, dataclasses.replace(plan.images, data_dir=data_dir))
    return HeadRun(run_dir, plan, images, restore_inputs(config, images))


def finetuned(
    run_dir: pathlib.Path, config: Mapping[str, Any], data_dir: pathlib.Path | None
) -> NetworkRun:
    """A run of experiments.finetune, given its `config.json`; the rest as of `open_run`."""
    options, class_names, result = read_options(FinetuneOptions, run_dir, config, data_dir)
    model = build_classifier(with_own_encoder(options), len(class_names))
    task = finetuning_task(options)
    strategy = build_finetuning(options, model, task, result["train_examples"])
    inputs = NetworkInputs(whole(options), model, task, model.encoder.config.image_size)
    validated = result.get("validation_examples", 0) > 0
    return NetworkRun(options, inputs, strategy, class_names, validated)


def convolutional(
    run_dir: pathlib.Path, config: Mapping[str, Any], data_dir: pathlib.Path | None
) -> NetworkRun:
    """A run of experiments.convnet, given its `config.json`; the rest as of `open_run`."""
    options, class_names, result = read_options(ConvnetOptions, run_dir, config, data_dir)
    model, task = build_network(options, len(class_names)), build_task(options)
    strategy = build_training(options, model, task, result["train_examples"])
    inputs = NetworkInputs(whole(options), model, task, options.image_size)
    validated = result.get("validation_examples", 0) > 0
    return NetworkRun(options, inputs, strategy, class_names, validated)


def with_own_encoder(options: FinetuneOptions) -> FinetuneOptions:
    """The options of a run with the encoder that it has written in place of its first one.

    Both are of one shape, and the checkpoint holds all values, so the first may be gone.
    """
    own = options.run_dir / "encoder"
    return dataclasses.replace(options, encoder=str(own)) if own.is_dir() else options


NETWORKS = {"finetune": finetuned, "convnet": convolutional}


def whole(options: EndToEndOptions) -> ImageOptions:
    """The images of a run without their masks, so that others can be chosen."""
    return dataclasses.replace(options.images, mask_ratio=None)
