"""Networks that are trained end to end, from images to classes: options, and the training.

The network itself and its optimiser are the script's (`experiments.finetune`,
`experiments.convnet`).
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import optax
from flax import nnx

from experiments.command.cli import Options
from experiments.command.errors import UsageError
from experiments.command.options import (
    ImageOptions,
    ProcessOptions,
    StrategyOptions,
    batch_of,
    pick,
)
from experiments.runs.calibration import spared_count
from experiments.runs.directory import read_part, without_notes
from experiments.runs.heads import strategy_of
from experiments.runs.images import dataset_of
from experiments.runs.remarks import say_once
from experiments.runs.restored import located
from jist.data import Dataset, splits_of, subset
from jist.data.holdout import spared
from jist.data.order import steps_until
from jist.models.fields import of_json
from jist.strategies import Strategy, participants
from jist.tasks import Task, classification

# Of tokens or pixels there are many for each image.
EVALUATED_AT_ONCE = 500
# Strategies whose workers train subnetworks.
PARTITIONED = ("ist", "ensemble")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndToEndOptions(Options, StrategyOptions, ProcessOptions):
    """What all networks have in common that are trained end to end."""

    dataset: str = "digits"
    """digits, cifar10, resisc45, aid, eurosat, eurosat-ms, ucmerced, tfds:NAME[/CONFIG] (of
    TensorFlow Datasets), or folder:PATH (one directory per class, below train/ and
    test/ or not)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45, aid, ..."""
    test_share: float = 0.2
    """Share of the images held out for testing, if the data set comes without a split."""
    strategy: str = "centralized"
    """ist, data_parallel, local_sgd, ensemble or centralized."""
    workers: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Number of workers n: 4 by default, and 1 of --strategy centralized."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes; of the reported losses, too."""
    least_crop: float = 0.6
    """Least area of a random crop, as a share of the image."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, applied to matrices."""
    warmup: float = 0.1
    """Share of the steps that warm the learning rate up."""
    batch_size: int | None = None
    """Images in a worker's batch. By default 64, or as many as all workers together have images
    for."""
    calibration: int = 1000
    """Training images held out to fit the temperature that makes probabilities true, at most a
    twentieth of all and none of fewer than 1000; 0 for none. Where the data bring a validation
    split it is fitted on that."""
    epochs: int = 10
    """How often every image is seen, by all workers together."""
    checkpoint_every: int | None = None
    """Rounds after which the state is saved within an epoch, too, so that a killed run loses no
    more than those; by default it is saved after every epoch."""
    resident_gb: float = 4.0
    """Images that take more than this many GB decoded are decoded whenever they are used, by all
    cores; of fewer every device holds a copy. Results are the same."""
    seed: int = 0
    """Decides split, masks, views, the head's initialisation, partitions and order."""
    run_dir: pathlib.Path = pathlib.Path("runs/end-to-end")
    """Where results are written; the same directory resumes where it stopped."""

    def __post_init__(self) -> None:
        if self.workers is None:
            workers = 1 if self.strategy == "centralized" else StrategyOptions.workers
            object.__setattr__(self, "workers", workers)
        StrategyOptions.__post_init__(self)
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if not 0 < self.least_crop <= 1:
            raise UsageError(f"least_crop must lie in (0, 1], got {self.least_crop}")
        if self.dataset.startswith("masked:"):
            raise UsageError(
                f"{self.dataset} comes with its masks, and images are needed here: train "
                "a head on it (experiments.distributed)"
            )

    def check_without_effect(self, names: Iterable[str], where: str) -> None:
        """Refuses options that nothing reads.

        Args:
            names: of the options.
            where: the option beside which they have no effect.

        Raises:
            UsageError: one of them is not as by default.
        """
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            value = getattr(self, name)
            several = isinstance(value, tuple)
            once = tuple(dict.fromkeys(value)) if several else value  # repeats are told elsewhere
            if usual[name] not in (value, once):
                given = " ".join(map(str, value)) if several else value
                raise UsageError(f"--{name} {given} has no effect with {where}")

    def batch_of(self, examples: int) -> int:
        """The images in a worker's batch, given the number of training images.

        Raises:
            UsageError: there are too few for the batches that were asked for.
        """
        return batch_of(self.batch_size, self.workers or 1, examples)

    @property
    def images(self) -> ImageOptions:
        """The images, whole and without an encoder."""
        return ImageOptions(
            dataset=self.dataset,
            data_dir=self.data_dir,
            test_share=self.test_share,
            seed=self.seed,
        )


Given = TypeVar("Given", bound=EndToEndOptions)


def read_options(
    kind: type[Given],
    run_dir: pathlib.Path,
    noted: Mapping[str, Any],
    data_dir: pathlib.Path | None,
) -> tuple[Given, list[str], dict[str, Any]]:
    """The options of a finished run, its class names, and its result.

    Args:
        kind: the options of its script.
        run_dir: the run directory.
        noted: its `config.json`.
        data_dir: where the images are, as of the options.

    Raises:
        FieldError: a field of its config.json is missing or of another type.
        FileNotFoundError: it is no run directory, or its training has not been finished yet.
    """
    config = without_notes(noted)
    del config["experiment"]
    config.pop("own_validation", None)  # of the data, no option
    config = {"calibration": 0} | config | {"data_dir": data_dir, "run_dir": run_dir}
    options = of_json(kind, config, f"{run_dir / 'config.json'}")
    found = located(noted, options.images)
    known = {"encoder", "data_dir"} & {field.name for field in dataclasses.fields(options)}
    options = dataclasses.replace(options, **{name: getattr(found, name) for name in known})
    summary = read_part(run_dir, "summary.json")
    return options, summary["class_names"], summary["results"][0]


def open_splits(options: EndToEndOptions) -> dict[str, Dataset]:
    """The splits by name: "train", "test" and what fits the temperature.

    That is the "validation" of the data set, which is said, or "calibration", training images that
    are not trained on.
    """
    images = options.images
    names = splits_of(images.dataset, data_dir=images.data_dir)
    splits: dict[str, Dataset] = {name: dataset_of(images, name) for name in names}
    if "validation" in splits:
        say_once(
            f"{images.dataset} brings a validation split: it chooses the best epoch and fits the "
            "temperature"
        )
        return splits
    train = splits["train"]
    share = spared_count(len(train), options.calibration) / len(train)
    if not share:
        return splits
    keys = [f"validation/{example_id}" for example_id in train.example_ids]  # as of heads
    held = spared(keys, train.labels, share=share, seed=images.seed)
    return splits | {"train": subset(train, ~held), "calibration": subset(train, held)}


def stay_in_memory(
    options: EndToEndOptions, splits: Mapping[str, Dataset], image_size: int
) -> bool:
    """Whether the images of all splits, decoded, do; says so if not."""
    decoded_gb = sum(len(of) * of.channels for of in splits.values()) * image_size**2 / 1e9
    if decoded_gb <= options.resident_gb:
        return True
    say_once(f"{decoded_gb:.1f} GB of images are decoded whenever used: more than --resident-gb")
    return False


def build_task(options: EndToEndOptions, *, mixtures: bool = False) -> Task:
    """What the network is trained for; `mixtures` as of `classification`."""
    return classification(
        label_smoothing=options.label_smoothing,
        mixtures=mixtures,
        examples_at_once=EVALUATED_AT_ONCE,
    )


def worker_steps(options: EndToEndOptions, examples: int) -> int:
    """Steps that a worker takes in all epochs, for the schedule of the learning rate."""
    how = pick(options, StrategyOptions)
    return steps_until(
        options.epochs,
        examples=examples,
        workers=participants(how.workers, how.participation),
        batch_size=options.batch_of(examples),
    )


def build_strategy(
    options: EndToEndOptions,
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    task: Task,
) -> Strategy:
    """The strategy that trains the network.

    Raises:
        ValueError: an unknown strategy, or one that does not take an option; or as the strategy.
    """
    how = pick(options, StrategyOptions)
    strategy, taken = strategy_of(how)
    return strategy(
        model,
        optimizer,
        workers=how.workers,
        local_steps=how.local_steps,
        loss=task.loss,
        **taken,
    )
