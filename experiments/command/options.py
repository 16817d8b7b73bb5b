"""The groups of options that scripts share."""

import dataclasses
import math
import pathlib
from typing import Any, ClassVar, TypeVar

from experiments.command.bands import BandOptions, parse_quality
from experiments.command.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalOptions(BandOptions):
    """Natural masks: missing regions of the images themselves."""

    natural_masks: bool = False
    """Use the images' own missing pixels: transparent ones, or those not zero in NAME.mask.png."""
    no_data: int | None = None
    """Natural masks: the value that stands for a missing pixel in every channel: 0 to 255 as
    decoded to 8 bits or, of 16-bit grey images, 0 to 65535 as stored."""
    simulate_clouds: float | None = None
    """Natural masks: hide this share of every image under simulated clouds, in (0, 1)."""
    max_missing: float = 0.0
    """Natural masks: share of a visible patch that may be missing, in [0, 1)."""
    quality_band: str | None = None
    """Natural masks: the band, by number or name, that says which pixels are clouds and the like;
    SCL (Sentinel-2) and QA_PIXEL (Landsat) are known."""
    cloudy: str | None = None
    """The values of --quality-band that are missing pixels, as in 3,8,9,10; or SCL or QA_PIXEL for
    a band of that kind under another name."""

    def __post_init__(self) -> None:
        BandOptions.__post_init__(self)
        parse_quality(self.quality_band, self.cloudy)
        if self.max_missing and not self.natural:
            raise UsageError("--max-missing needs --natural-masks or --simulate-clouds")

    @property
    def natural(self) -> bool:
        """Whether images come with their masks."""
        given = (self.no_data, self.simulate_clouds, self.quality_band)
        return self.natural_masks or any(option is not None for option in given)


BANDS = tuple(field.name for field in dataclasses.fields(BandOptions))
# The options of natural masks, with their defaults.
NATURAL: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(NaturalOptions)
    if field.name not in BANDS
}
NATURAL["skip_empty"] = False
OF_SPARSE = ("multilabel_loss", "entry_dropout", "row_length", "output_dtype", "negatives")
OUTPUT_DTYPES = ("float32", "bfloat16")
# Further options that only images have.
_ENCODED = (
    "data_dir",
    "encoder",
    "pool",
    "mask_ratio",
    "skip_unreadable",
    "encode_batch",
    "encode_dtype",
)
OF_IMAGES = (*NATURAL, *BANDS, *_ENCODED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions(NaturalOptions):
    """Images, the encoder, and the masking ratio."""

    takes_unlabelled: ClassVar[bool] = False

    dataset: str = "digits"
    """Images: digits, cifar10, resisc45, aid, folder:PATH (one directory per class, below train/
    and test/ or not), or masked:PATH (written by experiments.mask_dataset). Without images:
    features:PATH (your vectors: .npz, also SciPy's sparse ones, .npy, .parquet, a Zarr store; or
    TRAIN,TEST), speech:PATH
    (clips, one directory per word), or xc:PATH (sparse text with many labels: train.txt and
    test.txt of the Extreme Classification Repository)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45 or aid."""
    labels: str | None = None
    """features:PATH: the column or array of the labels, or a .npy or .txt file of them; of sparse
    vectors also a .npz file, a SciPy matrix of several labels each. By default y or label, or the
    file beside it that is called y for x, or labels for features."""
    multilabel_loss: str = "sigmoid"
    """Many labels: sigmoid (binary cross-entropy of every label), softmax (over all labels) or
    squared (squared error of every label)."""
    entry_dropout: float = 0.0
    """Sparse rows: share of an example's features that is dropped in training, in [0, 1)."""
    row_length: float | None = None
    """Sparse rows: scale every row to this Euclidean length; by default they stay as they are."""
    negatives: int = 0
    """Many labels, by sigmoid: so many labels are drawn in every step, and trained against in the
    place of all others; results say so. 0 for all."""
    output_dtype: str = "float32"
    """Sparse rows: type of the output layer's weights: float32, or bfloat16, rounded at random."""
    augment: bool = False
    """speech:PATH: move every training clip and add noise to it, anew in every epoch."""
    test_share: float = 0.2
    """Share of the examples held out for testing, if the data set comes without a split."""
    encoder: str = "mae-nano-cifar10"
    """Name of a shipped encoder, directory of another, or random-nano, -tiny, -small, -base."""
    pool: str = "cls"
    """What represents an image: cls, mean (of its visible patch tokens), or both."""
    mask_ratio: float | None = None
    """Share of the patches of every image that is removed, in [0, 1): 0.75 by default. Natural
    masks leave none to choose."""
    skip_empty: bool = False
    """Natural masks: leave out images without a visible patch, and count them. Many labels:
    likewise examples without a feature or a label."""
    seed: int = 0
    """Decides split, masks, initialisation, partitions and order."""
    resident_gb: float = 4.0
    """Features that take more GB than this are read from disk as training needs them, in blocks
    that are shuffled, and rows within some blocks; fewer stay in memory."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded, and list them, instead of stopping."""
    encode_batch: int = 256
    """Images encoded at a time; does not change the features."""
    encode_dtype: str = "float32"
    """Compute type of the encoder: float32; or bfloat16, about 1 % off and faster where the
    hardware multiplies it faster (GPUs, CPUs with AMX)."""

    def __post_init__(self) -> None:
        BandOptions.__post_init__(self)
        parse_quality(self.quality_band, self.cloudy)
        if self.labels is not None and not self.dataset.startswith("features:"):
            raise UsageError(f"--labels needs --dataset features:PATH, got {self.dataset}")
        if self.augment and not self.dataset.startswith("speech:"):
            raise UsageError(f"--augment needs --dataset speech:PATH, got {self.dataset}")
        may_be_sparse = self.dataset.startswith(("xc:", "features:"))
        for option in OF_SPARSE:
            if getattr(self, option) != getattr(ImageOptions, option) and not may_be_sparse:
                raise UsageError(
                    f"--{option.replace('_', '-')} needs --dataset xc:PATH or features:PATH, got "
                    f"{self.dataset}"
                )
        if self.negatives and self.multilabel_loss != "sigmoid":
            raise UsageError(
                f"--negatives {self.negatives} needs --multilabel-loss sigmoid, got "
                f"{self.multilabel_loss}"
            )
        if self.output_dtype not in OUTPUT_DTYPES:
            raise UsageError(
                f"output_dtype must be one of {OUTPUT_DTYPES}, got {self.output_dtype!r}"
            )
        if not self.of_images:
            self._check_without_images()
        if self.dataset.startswith("images:") and not self.takes_unlabelled:
            raise UsageError(
                f"dataset={self.dataset} has neither labels nor test images, so it serves "
                "experiments.extract and experiments.pretrain only; folder:PATH takes one "
                "directory per class"
            )
        given = [
            f"--{option.replace('_', '-')}"
            for option, default in NATURAL.items()
            if getattr(self, option) != default
        ]
        bands = [f"--{option}" for option in BANDS if getattr(self, option) is not None]
        if (given or bands) and self.dataset.startswith("masked:"):
            given = given or bands
            raise UsageError(f"{self.dataset} is masked already, {given[0]} cannot be used with it")
        if given and self.of_images and not self.natural:
            raise UsageError(f"{given[0]} needs --natural-masks or --simulate-clouds")
        if self.mask_ratio is not None and self.natural:
            raise UsageError(
                f"--mask-ratio {self.mask_ratio:g} has no effect: the images come with their masks"
            )
        if not self.resident_gb >= 0:
            raise UsageError(f"resident_gb must not be negative, got {self.resident_gb}")
        if not 0 <= self.ratio < 1:
            raise UsageError(f"mask_ratio must lie in [0, 1), got {self.mask_ratio}")

    def _check_without_images(self) -> None:
        """Options of images are refused where there are none."""
        for field in dataclasses.fields(ImageOptions):
            value = getattr(self, field.name)
            if field.name == "skip_empty" and not self.dataset.startswith("speech:"):
                continue  # examples without a feature or a label are left out, too
            if field.name in OF_IMAGES and value != field.default:
                raise UsageError(
                    f"--{field.name.replace('_', '-')} {value} has no effect: "
                    f"{self.dataset} holds no images"
                )

    @property
    def of_images(self) -> bool:
        """Whether the examples are images, which an encoder sees and masks hide in part."""
        return not self.dataset.startswith(("features:", "speech:", "xc:"))

    @property
    def natural(self) -> bool:
        """Whether images come with their masks, so that no masking ratio is chosen."""
        return super().natural or self.dataset.startswith("masked:")

    @property
    def encoder_name(self) -> str:
        """The name of the encoder in results."""
        pool = "" if self.pool == "cls" else f", {self.pool}"
        dtype = "" if self.encode_dtype == "float32" else f" in {self.encode_dtype}"
        return f"{self.encoder}{pool}{dtype}"

    @property
    def ratio(self) -> float:
        """The chosen masking ratio; 0 with natural masks, and where there are no images."""
        if self.natural or not self.of_images:
            return 0.0
        return 0.75 if self.mask_ratio is None else self.mask_ratio


BATCH_SIZE = 64  # CPAL 2024, Table 3
OPTIMIZERS = ("adam", "adamw", "sgd")
OUTER = ("none", "nesterov")
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
    learning_rate: float = 1e-3
    """Learning rate."""
    batch_size: int | None = None
    """Examples in a worker's batch. By default 64, or as many as all workers together have examples
    for."""
    epochs: int = 30
    """How often the examples are seen, by all workers together."""
    validation: float = 0.0
    """Share of the training examples of each class held out to choose the best epoch. 0 chooses it
    by the test images, as the paper does; that accuracy is biased upwards."""
    calibration: int = 1000
    """Training examples held out to fit the temperature that makes probabilities true, at most a
    twentieth of all and none of fewer than 1000; 0 for none. With --validation it is fitted on
    those examples."""

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
            ValueError: together the batches of all workers are larger than the data.
        """
        if self.batch_size is None:
            return min(BATCH_SIZE, max(1, examples // workers))
        if workers * self.batch_size > examples:
            raise UsageError(
                f"--batch-size {self.batch_size} of {workers} worker(s) needs "
                f"{workers * self.batch_size} training examples, there are {examples}: lower "
                "--batch-size or --workers"
            )
        return self.batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentOptions(HeadOptions, ImageOptions):
    """Images, heads that are trained on them, and where the features are kept."""

    features_dir: pathlib.Path | None = None
    """Where features are kept, to share them between runs; by default in the run directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundOptions:
    """What happens between two rounds, and who takes part."""

    exchange: str = "auto"
    """How parameters are stored (ist): replicated, every device holds the whole network; sharded,
    each holds a shard of it (needs --partition stratified and hidden widths that the number of
    devices divides); or auto: sharded where that is possible and a device receives no more
    bytes."""
    outer: str = "none"
    """Outer optimiser of what a round has changed (ist): nesterov, or none. diloco always has one.
    Parameters that a round did not train stand still."""
    outer_lr: float = 0.7
    """Learning rate of the outer optimiser."""
    outer_momentum: float = 0.9
    """Nesterov's momentum of the outer optimiser, in [0, 1)."""
    participation: float = 1.0
    """Share of the workers that takes part in a round (ist, local_sgd and diloco), in (0, 1];
    neurons of the absent keep their values."""
    replicas: int = 1
    """How many workers have each neuron (ist); what they have trained is averaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrategyOptions(RoundOptions):
    """How many workers train the head together."""

    strategy: str = "ist"
    """ist, data_parallel, local_sgd, diloco, ensemble or centralized."""
    workers: int = 4
    """Number of workers n."""
    local_steps: int = 50
    """Steps J of every worker in a round. The end of an epoch ends its last round early: J is at
    most the steps of an epoch."""
    partition: str = "uniform"
    """How neurons are assigned: uniform or stratified (ist and ensemble), or rolling (ist): windows
    that move on every round."""
    optimizer_state: str = "carry"
    """The optimiser's state between rounds (ist and local_sgd): carry (it moves with its neurons,
    or is averaged) or reset."""
    exchange_dtype: str = "none"
    """Type in which parameters are exchanged (ist): bfloat16, or none for their own type."""
    shares: str | None = None
    """Share of the neurons of each worker (ist), e.g. 0.5,0.25,0.25; by default all are equal."""
    worker_data: str = "shared"
    """Examples of each worker: shared, every worker sees all; or sharded, each has its own."""
    alpha: float | None = None
    """Concentration of the Dirichlet distribution that skews sharded examples by label: the
    smaller, the more skewed. By default all workers have the same mix of classes."""

    def __post_init__(self) -> None:
        for name in ("workers", "local_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.outer not in OUTER:
            raise UsageError(f"outer must be one of {OUTER}, got {self.outer!r}")
        for name in ("outer_lr", "outer_momentum"):
            value = getattr(self, name)
            if (
                self.strategy == "ist"
                and self.outer == "none"
                and value != getattr(type(self), name)
            ):
                raise UsageError(
                    f"--{name.replace('_', '-')} {value} needs --outer nesterov with --strategy ist"
                )

    def config(self) -> dict[str, Any]:
        """The options as JSON, as runs before there was a choice have written them.

        How pieces travel does not decide a result: auto is written like replicated.
        """
        config = dataclasses.asdict(self)
        for field in dataclasses.fields(RoundOptions):
            if config[field.name] == field.default:
                del config[field.name]
        return {"exchange": "replicated"} | config


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """The processes that train together; under a scheduler no option is needed."""

    coordinator: str | None = None
    """HOST:PORT at which all processes can reach process 0."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""
    join_timeout: int = 300
    """Seconds to wait for the other processes."""


Group = TypeVar("Group", ImageOptions, HeadOptions, StrategyOptions, ProcessOptions)


def pick(options: Any, group: type[Group]) -> Group:
    """The options of one group out of a script's options."""
    return group(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(group)}
    )
