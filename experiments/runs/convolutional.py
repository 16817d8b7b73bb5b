"""Networks of convolutions: options, the untrained network, the strategy that trains it."""

import dataclasses
import pathlib

from flax import nnx

from experiments.command.errors import UsageError
from experiments.runs.end_to_end import PARTITIONED, EndToEndOptions, build_strategy, worker_steps
from jist import strategies
from jist.finetuning import Cropped, momentum_sgd
from jist.models import VGG12, ImageClassifier, Preprocessing, ResNet18
from jist.tasks import Task

MODELS = ("resnet18", "vgg12")
SMALL = 64  # pixels up to which ResNet-18 has the stem of small images


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvnetOptions(EndToEndOptions):
    """Options of training networks of convolutions."""

    model: str = "resnet18"
    """resnet18 (with the stem of small images up to 64 pixels) or vgg12."""
    image_size: int = 32
    """Side to which images are resized, in pixels; of vgg12 a multiple of 32."""
    resize: str | None = None
    """How an image becomes a square: crop (by default) takes the central one, squash ignores the
    proportions, pad keeps the whole image and fills the rest with the mean colour."""
    channels: int = 64
    """Channels of the first stage; later ones have up to eight times as many."""
    neurons: tuple[str, ...] = ("channels",)
    """What of resnet18 is partitioned (ist, ensemble): channels of its last stage, blocks, or both.
    Of vgg12 it is the dense part."""
    hidden: tuple[int, ...] = (4096, 4096)
    """Widths of the hidden layers of vgg12's dense part."""
    learning_rate: float = 0.1
    """Highest learning rate of SGD with momentum 0.9."""
    weight_decay: float = 5e-4
    """Weight decay, applied to kernels."""
    warmup: float = 0.05
    """Share of the steps that warm the learning rate up."""
    epochs: int = 20
    """How often every image is seen, by all workers together."""
    run_dir: pathlib.Path = pathlib.Path("runs/convnet")
    """Where results are written; the same directory resumes where it stopped."""

    def __post_init__(self) -> None:
        EndToEndOptions.__post_init__(self)
        if self.model not in MODELS:
            raise UsageError(f"model must be one of {MODELS}, got {self.model!r}")
        if self.channels < 1:
            raise UsageError(f"channels must be at least 1, got {self.channels}")
        other = ("hidden",) if self.model == "resnet18" else ("neurons",)
        self.check_without_effect(other, f"--model {self.model}")
        if self.strategy not in PARTITIONED:
            self.check_without_effect(("neurons",), f"--strategy {self.strategy}")


def build_network(options: ConvnetOptions, classes: int) -> ImageClassifier:
    """The network before training, its neurons named.

    Raises:
        ValueError: as `ResNet18` or `VGG12`.
    """
    rngs = nnx.Rngs(options.seed)
    network: nnx.Module
    if options.model == "vgg12":
        network = VGG12(
            options.image_size, classes, hidden=options.hidden, width=options.channels, rngs=rngs
        )
    else:
        network = ResNet18(
            classes,
            neurons=options.neurons,
            small=options.image_size <= SMALL,
            width=options.channels,
            rngs=rngs,
        )
    views = Cropped(options.least_crop)
    preprocessing = Preprocessing(resize=options.resize or "crop")
    return ImageClassifier(network, views=views, preprocessing=preprocessing, rngs=rngs)


def build_training(
    options: ConvnetOptions, model: ImageClassifier, task: Task, examples: int
) -> strategies.Strategy:
    """The strategy that trains the network.

    Args:
        options: of the script.
        model: as `build_network`.
        task: as `build_task`.
        examples: number of training images.

    Raises:
        ValueError: as `build_strategy`.
    """
    steps = worker_steps(options, examples)
    optimizer = momentum_sgd(
        options.learning_rate,
        steps=steps,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
    )
    return build_strategy(options, model, optimizer, task)
