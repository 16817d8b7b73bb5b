"""The plan of a run: everything that decides its results, as stored in `config.json`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.command.errors import UsageError
from experiments.command.options import (
    BANDS,
    BATCH_SIZE,
    NATURAL,
    OF_IMAGES,
    OF_SPARSE,
    HeadOptions,
    ImageOptions,
    StrategyOptions,
)
from jist.models.fields import FieldError, of_json

MASKS = ("fixed", "random")  # those that are drawn, at a ratio that was chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a plan: masking ratio, strategy, and its own options of the head."""

    mask_ratio: float
    how: StrategyOptions
    each: bool = False
    """The plan's epochs are those of each worker: n workers together take n times as many."""
    norm: str | None = None
    """Replaces the plan's, if given."""
    mask: str = "fixed"
    """Of the training images: fixed, or random, a new mask for every image and epoch."""

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise UsageError(f"mask must be fixed or random, got {self.mask!r}")

    @property
    def name(self) -> str:
        """The name of the training in a run directory."""
        how = self.how
        parts = [how.strategy, str(how.workers)]
        parts += [how.exchange] if how.exchange == "sharded" else []
        parts += [how.exchange_dtype] if how.exchange_dtype != "none" else []
        parts += [f"state-{how.state_dtype}"] if how.state_dtype != "none" else []
        parts += [how.worker_data] if how.worker_data != "shared" else []
        parts += [self.mask] if self.mask != "fixed" else []
        parts += [f"outer-{how.outer}"] if how.outer != "none" else []
        for option in ("outer_lr", "outer_momentum", "participation", "replicas", "ema_decay"):
            if getattr(how, option) != getattr(StrategyOptions, option):
                parts.append(f"{option.replace('_', '-')}-{getattr(how, option):g}")
        parts += ["ratio", f"{self.mask_ratio:g}"]
        parts += ["each"] if self.each else []
        parts += [f"norm-{self.norm}"] if self.norm is not None else []
        return "-".join(parts)

    def config(self) -> dict[str, Any]:
        """The training as JSON, without what it shares with the plan."""
        config: dict[str, Any] = {"mask_ratio": self.mask_ratio, "mask": self.mask}
        config["how"] = self.how.config()
        own = {"each": self.each or None, "norm": self.norm}
        return config | {name: value for name, value in own.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the results of a run."""

    experiment: str
    images: ImageOptions
    head: HeadOptions
    trainings: tuple[Training, ...]
    own_validation: bool = False
    """The data bring a validation split, which stands in the place of held-out examples."""

    def __post_init__(self) -> None:
        drawn = any(training.mask_ratio or training.mask != "fixed" for training in self.trainings)
        if drawn and not self.images.of_images:
            raise UsageError(
                f"masking ratios and random masks need images, got dataset {self.images.dataset}"
            )
        if self.images.natural and drawn:
            raise UsageError(
                "images that come with their masks leave no ratio to choose and no mask to draw: "
                f"got dataset {self.images.dataset}, mask ratios "
                f"{sorted({training.mask_ratio for training in self.trainings})}"
            )

    @property
    def validated(self) -> bool:
        """Whether the epoch is chosen without the test examples."""
        return self.own_validation or self.head.validation > 0

    def head_of(self, training: Training) -> HeadOptions:
        """The options of a training's head."""
        epochs = self.head.epochs * (training.how.workers if training.each else 1)
        return dataclasses.replace(self.head, epochs=epochs, norm=training.norm or self.head.norm)

    def is_done(self, training: Training, results: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether a run has a training's result after all the epochs that are planned."""
        epochs = self.head_of(training).epochs
        result = results.get(training.name)
        return result is not None and result.get("epochs", epochs) >= epochs

    def config(self) -> dict[str, Any]:
        """The plan as JSON, without options that do not change the results."""
        config = dataclasses.asdict(self)
        if not self.own_validation:
            del config["own_validation"]  # runs before it was noticed list none
        unused = {"data_dir", "encode_batch", "mask_ratio", "resident_gb"}
        unused |= {"labels"} if self.images.labels is None else set()
        unused |= {"pool"} if self.images.pool == "cls" else set()
        unused |= set() if self.images.augment else {"augment"}
        unused |= set() if self.images.natural else {*NATURAL}
        later = (*BANDS, "quality_band", "cloudy")  # not listed by runs from before there were any
        unused |= {name for name in later if getattr(self.images, name) is None}
        sparse, own = (self.images.dataset.startswith(kind) for kind in ("xc:", "features:"))
        unused |= set() if self.images.of_images else {*OF_IMAGES}
        of_sparse = {*OF_SPARSE, "skip_empty"}
        if own:  # as runs before vectors could be sparse
            unused |= {o for o in of_sparse if self._is_default(o)}
            unused -= {o for o in of_sparse if not self._is_default(o)}
        elif sparse:
            unused -= of_sparse
        else:
            unused |= of_sparse - {"skip_empty"}
        unused |= {o for o in ("row_length", "output_dtype", "negatives") if self._is_default(o)}
        config["images"] = {k: v for k, v in config["images"].items() if k not in unused}
        del config["head"]["preset"]  # its widths are there
        for option in (
            "optimizer",
            "dropout",
            "weight_decay",
            "lazy_rows",
            "fused_output",
        ):  # runs before a choice list none
            if getattr(self.head, option) == getattr(HeadOptions, option):
                del config["head"][option]
        if not self.head.calibration or self.head.validation:
            del config["head"]["calibration"]
        config["head"]["batch_size"] = self.head.batch_size or BATCH_SIZE
        config["trainings"] = [training.config() for training in self.trainings]
        return config

    def _is_default(self, option: str) -> bool:
        return getattr(self.images, option) == getattr(ImageOptions, option)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Plan":
        """The plan of a `config.json`.

        Raises:
            UsageError: it was written by a script that trains no classifier.
            FieldError: a field is missing or of another type.
        """
        if "trainings" not in config:
            raise UsageError(
                "run_dir must be one of a script that trains classifiers, got one of "
                f"experiments.{config.get('experiment')}"
            )
        if not isinstance(config["trainings"], list):
            raise FieldError(f"config.json: trainings must be a list, got {config['trainings']!r}")
        given = config.get("head")
        if isinstance(given, dict):
            given = {"calibration": 0} | given  # runs before there was any do not list it
        return cls(
            experiment=str(config.get("experiment")),
            images=of_json(ImageOptions, config.get("images"), "config.json: images"),
            head=of_json(HeadOptions, given, "config.json: head"),
            trainings=tuple(
                of_json(Training, training, f"config.json: trainings[{number}]")
                for number, training in enumerate(config["trainings"])
            ),
            own_validation=config.get("own_validation") is True,
        )
