"""Fine-tuning: its options, and the untrained network with the strategy that trains it."""

import dataclasses
import pathlib

from flax import nnx

from experiments.command.bands import BandOptions
from experiments.command.cli import Options
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions, ProcessOptions, StrategyOptions, pick
from experiments.runs.directory import read_part, without_notes
from experiments.runs.heads import strategy_of
from experiments.runs.images import build_encoder, check_sees_patches, dataset_of
from jist import strategies, trainer
from jist.data import Dataset
from jist.data.order import steps_until
from jist.finetuning import Cropped, Mirrored, adamw_by_depth
from jist.models import Classifier, name_neurons
from jist.models.fields import of_json
from jist.tasks import Task, classification

CORRECTIONS = ("scale", "none")
# Of a Transformer's tokens there are many for each image.
EVALUATED_AT_ONCE = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options, BandOptions, StrategyOptions, ProcessOptions):
    """Options of fine-tuning."""

    dataset: str = "digits"
    """digits, cifar10, resisc45, aid, or folder:PATH (one directory per class, below train/ and
    test/ or not)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45 or aid."""
    test_share: float = 0.2
    """Share of the images held out for testing, if the data set comes without a split."""
    encoder: str = "mae-nano-cifar10-long"
    """Name of a shipped encoder, directory of another, or random-nano, -tiny, -small, -base."""
    mask_ratio: float = 0.75
    """Share of the patches of every image that is removed, in [0, 1)."""
    strategy: str = "centralized"
    """ist, data_parallel, local_sgd, ensemble or centralized."""
    workers: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Number of workers n: 4 by default, and 1 of --strategy centralized."""
    mask: str = "random"
    """Masks of the training images: fixed; or random, a new mask for every image and epoch. Tests
    are under fixed masks."""
    neurons: tuple[str, ...] = ("mlp", "heads")
    """What of the encoder is partitioned (ist, ensemble): any of mlp, heads and blocks."""
    correction: str = "scale"
    """What corrects a subnetwork for its missing neurons: scale or none."""
    pooling: str = "cls"
    """What the head sees: the cls token, or the mean of the visible patches' tokens."""
    least_crop: float = 0.6
    """Least area of a random crop, as a share of the image. With fixed masks and a ratio above 0
    images are mirrored with their masks, and not cropped: a crop would show what is hidden."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes; of the reported losses, too."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW, that of the head."""
    layer_decay: float = 0.75
    """Factor of the learning rate from each block to the one below."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, applied to matrices."""
    warmup: float = 0.1
    """Share of the steps that warm the learning rate up."""
    batch_size: int = 64
    """Images in a worker's batch."""
    epochs: int = 10
    """How often every image is seen, by all workers together."""
    dtype: str = "auto"
    """Compute type: float32, bfloat16, or auto (bfloat16 except on CPUs without AMX)."""
    seed: int = 0
    """Decides split, masks, views, the head's initialisation, partitions and order."""
    run_dir: pathlib.Path = pathlib.Path("runs/finetune")
    """Where results are written; the same directory resumes where it stopped."""

    def __post_init__(self) -> None:
        if self.workers is None:
            workers = 1 if self.strategy == "centralized" else StrategyOptions.workers
            object.__setattr__(self, "workers", workers)
        BandOptions.__post_init__(self)
        StrategyOptions.__post_init__(self)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, allowed in (("mask", ("fixed", "random")), ("correction", CORRECTIONS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if not 0 < self.least_crop <= 1:
            raise UsageError(f"least_crop must lie in (0, 1], got {self.least_crop}")
        if self.dataset.startswith("masked:"):
            raise UsageError(
                f"{self.dataset} comes with its masks, and fine-tuning draws them: train a head on "
                "it (experiments.distributed)"
            )

    @property
    def random(self) -> bool:
        """Whether the masks of the training images are drawn; without any they are the same."""
        return self.mask == "random" or self.mask_ratio == 0

    @property
    def images(self) -> ImageOptions:
        """Images and encoder; `dtype` must not be auto."""
        return ImageOptions(
            dataset=self.dataset,
            data_dir=self.data_dir,
            test_share=self.test_share,
            encoder=self.encoder,
            mask_ratio=self.mask_ratio,
            seed=self.seed,
            encode_dtype=self.dtype,
            bands=self.bands,
            scale=self.scale,
        )


def build_classifier(options: FinetuneOptions, classes: int) -> Classifier:
    """The network before fine-tuning, its neurons named.

    Raises:
        ValueError: as `build_encoder` and `name_neurons`, or the encoder sees images whole.
    """
    encoder = check_sees_patches(options.images, build_encoder(options.images))
    name_neurons(encoder, options.neurons, scaled=options.correction == "scale")
    views = Cropped(options.least_crop) if options.random else Mirrored(encoder.config.grid)
    rngs = nnx.Rngs(options.seed)
    return Classifier(encoder, classes, pooling=options.pooling, views=views, rngs=rngs)


def build_task(options: FinetuneOptions) -> Task:
    """What the network is trained for."""
    return classification(
        label_smoothing=options.label_smoothing, examples_at_once=EVALUATED_AT_ONCE
    )


def build_finetuning(
    options: FinetuneOptions, model: Classifier, task: Task, examples: int
) -> strategies.Strategy:
    """The strategy that trains the network.

    Args:
        options: of the script.
        model: as `build_classifier`.
        task: as `build_task`.
        examples: number of training images.

    Raises:
        ValueError: an unknown strategy, or one that does not take an option; or as the strategy.
    """
    how = pick(options, StrategyOptions)
    strategy, taken = strategy_of(how)
    steps = steps_until(
        options.epochs,
        examples=examples,
        workers=strategies.participants(how.workers, how.participation),
        batch_size=options.batch_size,
    )
    optimizer = adamw_by_depth(
        options.learning_rate,
        depth=model.encoder.config.depth,
        layer_decay=options.layer_decay,
        steps=steps,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
    )
    return strategy(
        model,
        optimizer,
        workers=how.workers,
        local_steps=how.local_steps,
        loss=task.loss,
        **taken,
    )


def restore_finetuned(
    run_dir: pathlib.Path, data_dir: pathlib.Path | None
) -> tuple[FinetuneOptions, Classifier, Dataset]:
    """The options of a run, its network after the last epoch, and its test images.

    Args:
        run_dir: the run directory.
        data_dir: where the images are, as of the options.

    Raises:
        UsageError: it is no run of experiments.finetune.
        FieldError: a field of its config.json is missing or of another type.
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    config = without_notes(read_part(run_dir, "config.json"))
    if config.pop("experiment", None) != "finetune":
        raise UsageError(f"run_dir={run_dir} is no run of experiments.finetune")
    config |= {"data_dir": data_dir, "run_dir": run_dir}
    options = of_json(FinetuneOptions, config, f"{run_dir / 'config.json'}")
    task, tests = build_task(options), dataset_of(options.images, "test")
    trained_on = read_part(run_dir, "summary.json")["results"][0]["train_examples"]
    model = build_classifier(options, len(tests.class_names))
    strategy = build_finetuning(options, model, task, trained_on)
    found = trainer.restore_model(strategy, run_dir / "checkpoints", "last", task=task)
    assert isinstance(found, Classifier)
    return options, found, tests
