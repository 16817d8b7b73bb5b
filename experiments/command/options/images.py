"""Which examples, from where, and how they become features."""

import dataclasses
import pathlib
from typing import Any, ClassVar

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
# Those that say how files are read; the size is the encoder's.
READING = tuple(name for name in BANDS if name != "image_size")
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
    """Images: digits, cifar10, resisc45, aid, eurosat, eurosat-ms, ucmerced, tfds:NAME[/CONFIG]
    (of TensorFlow Datasets), folder:PATH (one directory per class, below train/ and test/ or not,
    with val/ or not), or masked:PATH (written by experiments.mask_dataset). Without images:
    features:PATH (your vectors: .npz, also SciPy's sparse ones, .npy, .parquet, a Zarr store; or
    TRAIN,TEST), speech:PATH
    (clips, one directory per word), or xc:PATH (sparse text with many labels: train.txt and
    test.txt of the Extreme Classification Repository)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45, aid, ...; a
    PATH that is relative begins there."""
    labels: str | None = None
    """features:PATH: the column or array of the labels, or a .npy or .txt file of them. Rows may
    have several labels each: a matrix of 0 and 1, also as a SciPy .npz file, or lists of numbers or
    of names in Parquet. By default y or label, or the file beside it that is called y for x, or
    labels for features."""
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
    """Name of a shipped encoder, directory of another, hf:OWNER/NAME[@REVISION] of the Hugging Face
    hub (converted once), or random-nano, -tiny, -small, -base."""
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
        bands = [f"--{option}" for option in READING if getattr(self, option) is not None]
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
    def base(self) -> pathlib.Path:
        """Where relative paths of the data begin."""
        return pathlib.Path() if self.data_dir is None else self.data_dir.expanduser()

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
