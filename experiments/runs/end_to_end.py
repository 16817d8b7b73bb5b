"""Networks that are trained end to end, from images to classes: options, and the training.

The network itself and its optimiser are the script's (`experiments.finetune`,
`experiments.convnet`).
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import optax
from flax import nnx

from experiments.command.cli import Options
from experiments.command.errors import UsageError
from experiments.command.options import (
    BANDS,
    ImageOptions,
    ProcessOptions,
    StrategyOptions,
    pick,
)
from experiments.runs.directory import RunDirectory, read_part, without_notes
from experiments.runs.heads import say_exchange, strategy_of, worker_pools
from experiments.runs.images import dataset_of, progress_bar
from experiments.runs.outcome import chosen
from experiments.runs.remarks import say_once
from experiments.runs.restored import located
from jist import trainer
from jist.data import Dataset, splits_of
from jist.data.order import steps_until
from jist.metrics import MetricsLog
from jist.models.fields import of_json
from jist.strategies import Strategy, participants
from jist.tasks import Examples, Task, classification, count

# Why a run cannot be resumed with another value.
REASONS = {
    "epochs": "the learning rate falls along a cosine that ends with the last epoch, so a longer "
    "run differs from its first step"
}
# Options that do not change the result, and may differ when a run resumes.
FREE = ("run_dir", "debug", "data_dir")
# Of tokens or pixels there are many for each image.
EVALUATED_AT_ONCE = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndToEndOptions(Options, StrategyOptions, ProcessOptions):
    """What all networks have in common that are trained end to end."""

    dataset: str = "digits"
    """digits, cifar10, resisc45, aid, or folder:PATH (one directory per class, below train/ and
    test/ or not)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45 or aid."""
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
    batch_size: int = 64
    """Images in a worker's batch."""
    epochs: int = 10
    """How often every image is seen, by all workers together."""
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
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.least_crop <= 1:
            raise UsageError(f"least_crop must lie in (0, 1], got {self.least_crop}")
        if self.dataset.startswith("masked:"):
            raise UsageError(
                f"{self.dataset} comes with its masks, and images are needed here: train "
                "a head on it (experiments.distributed)"
            )

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
    kind: type[Given], run_dir: pathlib.Path, data_dir: pathlib.Path | None
) -> tuple[Given, list[str], dict[str, Any]]:
    """The options of a finished run, its class names, and its result.

    Args:
        kind: the options of its script.
        run_dir: the run directory.
        data_dir: where the images are, as of the options.

    Raises:
        FieldError: a field of its config.json is missing or of another type.
        FileNotFoundError: it is no run directory, or its training has not been finished yet.
    """
    config = without_notes(read_part(run_dir, "config.json"))
    del config["experiment"]
    config |= {"data_dir": data_dir, "run_dir": run_dir}
    options = of_json(kind, config, f"{run_dir / 'config.json'}")
    found = located(run_dir, options.images)
    known = {"encoder", "data_dir"} & {field.name for field in dataclasses.fields(options)}
    options = dataclasses.replace(options, **{name: getattr(found, name) for name in known})
    summary = read_part(run_dir, "summary.json")
    return options, summary["class_names"], summary["results"][0]


def open_splits(images: ImageOptions) -> dict[str, Dataset]:
    """The splits by name; what a validation split is for is said."""
    splits = splits_of(images.dataset, data_dir=images.data_dir)
    if "validation" in splits:
        say_once(f"{images.dataset} brings a validation split: it chooses the best epoch")
    return {split: dataset_of(images, split) for split in splits}


def build_task(options: EndToEndOptions) -> Task:
    """What the network is trained for."""
    return classification(
        label_smoothing=options.label_smoothing, examples_at_once=EVALUATED_AT_ONCE
    )


def worker_steps(options: EndToEndOptions, examples: int) -> int:
    """Steps that a worker takes in all epochs, for the schedule of the learning rate."""
    how = pick(options, StrategyOptions)
    return steps_until(
        options.epochs,
        examples=examples,
        workers=participants(how.workers, how.participation),
        batch_size=options.batch_size,
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


def configuration(options: EndToEndOptions) -> dict[str, Any]:
    """The options that decide the result."""
    config = dataclasses.asdict(options)
    groups = (*dataclasses.fields(ProcessOptions), *dataclasses.fields(StrategyOptions))
    for name in (*FREE, *(field.name for field in groups)):
        del config[name]
    # Runs of colour images are gone on with that are older than these options.
    config = {name: of for name, of in config.items() if of is not None or name not in BANDS}
    return config | pick(options, StrategyOptions).config()


def train_end_to_end(
    name: str,
    options: EndToEndOptions,
    strategy: Strategy,
    task: Task,
    train: Examples | trainer.Renewed,
    test: Examples,
    *,
    labels: np.ndarray,
    class_names: Sequence[str],
    pinned: Mapping[str, str],
    validation: Examples | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Trains, evaluates after every epoch, and adds the result to the run directory.

    Args:
        name: of the experiment.
        options: of the script.
        strategy: as `build_strategy`.
        task: as `build_task`.
        train: training examples, or those of every epoch.
        test: test examples.
        labels: the classes of the training examples [N].
        class_names: their names.
        pinned: digests that must be the same when a run resumes.
        validation: examples of the data set's own validation split, which choose the best epoch.
        **facts: what the result says besides; `ratio`, the masking ratio, always.

    Returns:
        The result.

    Raises:
        UsageError: the directory is of another configuration; or as `jist.trainer.train`.
    """
    config, how = configuration(options), pick(options, StrategyOptions)
    say_exchange(how, strategy)
    directory = RunDirectory(options.run_dir, {"experiment": name} | config, reasons=REASONS)
    directory.pin(dict(pinned))
    with progress_bar() as progress, MetricsLog(options.run_dir, name) as log:
        history = trainer.train(
            strategy,
            train,
            test,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            checkpoints=options.run_dir / "checkpoints",
            log=log,
            task=task,
            validation_examples=validation,
            pools=worker_pools(how, labels, options.seed),
            progress=progress,
            description=f"{name}, {options.strategy}, {options.workers} worker(s)",
        )
    last = history[-1]
    result = {
        "run": name,
        **{name: value for name, value in config.items() if name != "mask_ratio"},
        **dataclasses.asdict(how),
        "exchange": strategy.exchange,
        **facts,
        "train_examples": len(labels),
        "validation_examples": 0 if validation is None else count(validation),
        "test_examples": count(test),
        **chosen(history, task),
        **{name: last[name] for name in ("test_loss", "bytes_received_per_worker")},
        "parameters_per_worker": strategy.parameters_per_worker,
        "flops_per_worker": last["flops_per_worker"],
        "training_seconds": round(sum(metrics["seconds"] for metrics in history), 3),
    }
    directory.add_result(result, list(class_names))
    return result
