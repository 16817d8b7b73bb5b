"""Fine-tuning: its options, and the untrained network with the strategy that trains it."""

import dataclasses
import pathlib

from flax import nnx

from experiments.command.errors import UsageError
from experiments.command.options import BANDS, NATURAL, ImageOptions, NaturalOptions
from experiments.runs.end_to_end import (
    PARTITIONED,
    EndToEndOptions,
    build_strategy,
    build_task,
    worker_steps,
)
from experiments.runs.images import build_encoder, check_sees_patches
from jist import strategies
from jist.finetuning import Cropped, Mirrored, adamw_by_depth
from jist.models import Classifier, name_neurons
from jist.models.neurons import CORRECTIONS
from jist.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneOptions(NaturalOptions, EndToEndOptions):
    """Options of fine-tuning."""

    encoder: str = "mae-nano-cifar10-long"
    """Name of a shipped encoder, directory of another, hf:OWNER/NAME[@REVISION] of the Hugging Face
    hub (converted once), or random-nano, -tiny, -small, -base."""
    mask_ratio: float | None = None
    """Share of the patches of every image that is removed, in [0, 1): 0.75 by default. Natural
    masks leave none to choose."""
    mask: str = "random"
    """Masks of the training images: fixed; or random, a new mask for every image and epoch. Tests
    are under fixed masks. Natural masks are always the images' own."""
    skip_empty: bool = False
    """Natural masks: leave out images without a visible patch, and count them."""
    neurons: tuple[str, ...] = ("mlp", "heads")
    """What of the encoder is partitioned (ist, ensemble): any of mlp, heads, channels (of every
    head, in the place of heads) and blocks."""
    correction: str = "scale"
    """What corrects a subnetwork for its missing neurons: reconstruct (they are estimated from its
    own by least squares), scale or none."""
    pooling: str = "cls"
    """What the head sees: the cls token, or the mean of the visible patches' tokens."""
    least_crop: float = 0.6
    """Least area of a random crop, as a share of the image. With fixed masks and a ratio above 0,
    and with natural masks, images are mirrored with their masks, and not cropped: a crop would
    show what is hidden."""
    mixup: float = 0.0
    """Alpha of the Beta distribution from which the share of an image in its mixture with another
    is drawn for every batch; 0 mixes none. With random masks alone: a mixture would show of an
    image what its own mask hides."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW, that of the head."""
    layer_decay: float = 0.75
    """Factor of the learning rate from each block to the one below."""
    dtype: str = "auto"
    """Compute type: float32, bfloat16, or auto (bfloat16 except on CPUs without AMX)."""
    run_dir: pathlib.Path = pathlib.Path("runs/finetune")
    """Where results are written; the same directory resumes where it stopped."""

    def __post_init__(self) -> None:
        NaturalOptions.__post_init__(self)
        EndToEndOptions.__post_init__(self)
        if self.natural and self.mask_ratio:
            raise UsageError(
                f"--mask-ratio {self.mask_ratio:g} has no effect: the images come with their masks"
            )
        if self.natural and self.correction == "reconstruct":  # fits padding like tokens
            raise UsageError("--correction reconstruct cannot be used with natural masks")
        if self.natural:
            self.check_without_effect(("resident_gb",), "natural masks: images stay in memory")
        if self.skip_empty and not self.natural:
            raise UsageError("--skip-empty needs --natural-masks or --simulate-clouds")
        if self.mask_ratio is None:
            object.__setattr__(self, "mask_ratio", 0.0 if self.natural else 0.75)
        for name, allowed in (("mask", ("fixed", "random")), ("correction", CORRECTIONS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.strategy not in PARTITIONED:
            self.check_without_effect(("neurons", "correction"), f"--strategy {self.strategy}")
        if self.mixup and not self.random:
            raise UsageError(
                f"--mixup {self.mixup:g} cannot be used with fixed or natural masks: a mixture "
                "would show what they hide"
            )

    @property
    def ratio(self) -> float:
        """The chosen masking ratio; 0 with natural masks."""
        return self.mask_ratio or 0.0

    @property
    def random(self) -> bool:
        """Whether the masks of the training images are drawn; without any they are the same."""
        return not self.natural and (self.mask == "random" or self.ratio == 0)

    @property
    def images(self) -> ImageOptions:
        """Images and encoder; `dtype` must not be auto."""
        return dataclasses.replace(
            super().images,
            encoder=self.encoder,
            mask_ratio=None if self.natural else self.ratio,
            encode_dtype=self.dtype,
            **{name: getattr(self, name) for name in (*BANDS, *NATURAL)},
        )


def build_classifier(options: FinetuneOptions, classes: int) -> Classifier:
    """The network before fine-tuning, its neurons named.

    Raises:
        ValueError: as `build_encoder` and `name_neurons`, or the encoder sees images whole.
    """
    encoder = check_sees_patches(options.images, build_encoder(options.images))
    name_neurons(encoder, options.neurons, correction=options.correction)
    border = encoder.preprocessing.border
    if options.random:
        views = Cropped(options.least_crop, border)
    else:  # behind a border patches do not lie in the mirrored image's grid
        views = None if border else Mirrored(encoder.config.grid)
    rngs = nnx.Rngs(options.seed)
    given = {"pooling": options.pooling, "views": views, "mixup": options.mixup}
    return Classifier(encoder, classes, **given, rngs=rngs)


def finetuning_task(options: FinetuneOptions) -> Task:
    """What the network is trained for."""
    return build_task(options, mixtures=options.mixup > 0)


def build_finetuning(
    options: FinetuneOptions, model: Classifier, task: Task, examples: int
) -> strategies.Strategy:
    """The strategy that trains the network.

    Args:
        options: of the script.
        model: as `build_classifier`.
        task: as `finetuning_task`.
        examples: number of training images.

    Raises:
        ValueError: as `build_strategy` and `adamw_by_depth`.
    """
    steps = worker_steps(options, examples)
    optimizer = adamw_by_depth(
        options.learning_rate,
        depth=model.encoder.config.depth,
        layer_decay=options.layer_decay,
        steps=steps,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
    )
    return build_strategy(options, model, optimizer, task)
