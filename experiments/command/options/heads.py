"""The network that is trained, and how."""

import dataclasses
import math

from experiments.command.errors import UsageError

BATCH_SIZE = 64  # CPAL 2024, Table 3
OPTIMIZERS = ("adam", "adamw", "sgd")
# Widths of the hidden layers of VLDB 2022, §3.1.
PRESETS = {"speech-2-layer": (4096,), "speech-3-layer": (8192, 8192)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """How the classifier head is trained; the defaults are those of CPAL 2024, Table 3."""

    hidden: tuple[int, ...] = (1000, 1000)
    """Widths of the hidden layers."""
    norm: str = "standardize"
    """How subnetworks are corrected for missing inputs: standardize, scale or none."""
    preset: str | None = None
    """A network of the papers, in the place of --hidden: speech-2-layer (VLDB 2022: one hidden
    layer of 4096) or speech-3-layer (8192-8192)."""
    dropout: float = 0.0
    """Share of a hidden layer's activations that is dropped in training, in [0, 1)."""
    optimizer: str = "adam"
    """adam, with betas 0.9 and 0.999, or sgd, without momentum, both without weight decay; or
    adamw, the same as adam with weight decay."""
    weight_decay: float = 0.1
    """Weight decay of adamw, times the learning rate in every step; DiLoCo's by default."""
    lazy_rows: bool = False
    """Sparse rows: an optimiser's step leaves those rows of the first kernel alone whose features
    the batch lacks; not with data_parallel. The same as before for sgd, lazy Adam for adam."""
    fused_output: bool = False
    """Many labels: the output layer takes its step a chunk of labels at a time, and its gradient is
    never held whole: of a large one half the memory with sgd, for the same steps up to rounding.
    Not with data_parallel, --lazy-rows, --negatives or --multilabel-loss softmax."""
    learning_rate: float = 1e-3
    """Learning rate."""
    batch_size: int | None = None
    """Examples in a worker's batch. By default 64, or as many as all workers together have examples
    for."""
    epochs: int = 30
    """How often the examples are seen, by all workers together."""
    validation: float = 0.0
    """Share of the training examples of each class held out to choose the best epoch. 0 chooses it
    by the data set's own validation split (val/ of a folder) or, without one, by the test images,
    as the paper does; that accuracy is biased upwards."""
    calibration: int = 1000
    """Training examples held out to fit the temperature that makes probabilities true, at most a
    twentieth of all and none of fewer than 1000; 0 for none. With --validation, or a validation
    split, it is fitted on those examples."""

    def __post_init__(self) -> None:
        if self.preset is not None:
            if self.preset not in PRESETS:
                raise UsageError(f"preset must be one of {(*PRESETS,)}, got {self.preset!r}")
            if self.hidden not in (type(self).hidden, PRESETS[self.preset]):
                raise UsageError(
                    f"--preset {self.preset} has widths of its own, got --hidden {self.hidden}, too"
                )
            object.__setattr__(self, "hidden", PRESETS[self.preset])
            object.__setattr__(self, "preset", None)  # so that `replace` may change the widths
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer must be one of {OPTIMIZERS}, got {self.optimizer!r}")
        if self.weight_decay != HeadOptions.weight_decay and self.optimizer != "adamw":
            raise UsageError(
                f"--weight-decay {self.weight_decay:g} needs --optimizer adamw, got "
                f"{self.optimizer}"
            )
        if self.fused_output and self.lazy_rows:
            raise UsageError("--fused-output cannot be used with --lazy-rows")
        for name, values in (("hidden", self.hidden), ("epochs", (self.epochs,))):
            if min(values, default=1) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.validation < 1:
            raise UsageError(f"validation must lie in [0, 1), got {self.validation}")
        if self.calibration < 0:
            raise UsageError(f"calibration must not be negative, got {self.calibration}")

    def batch_of(self, workers: int, examples: int) -> int:
        """The examples in a worker's batch; of a small data set fewer than usual.

        Args:
            workers: number of workers n.
            examples: training examples.

        Raises:
            ValueError: as the function `batch_of`.
        """
        return batch_of(self.batch_size, workers, examples)


def batch_of(asked: int | None, workers: int, examples: int) -> int:
    """The examples in a worker's batch: what was asked for, or as usual, or fewer of few examples.

    >>> batch_of(None, 4, 1000), batch_of(None, 4, 120), batch_of(30, 4, 120)
    (64, 30, 30)

    Raises:
        UsageError: together the batches of all workers are larger than the data.
    """
    if asked is None:
        return min(BATCH_SIZE, max(1, examples // workers))
    if workers * asked > examples:
        raise UsageError(
            f"--batch-size {asked} of {workers} worker(s) needs {workers * asked} training "
            f"examples, there are {examples}: lower --batch-size or --workers"
        )
    return asked
