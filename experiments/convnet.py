r"""Trains a ResNet-18 or a VGG-12 from scratch on whole images, by any strategy.

    python -m experiments.convnet --dataset folder:data/cifar10 --model resnet18 \
        --strategy ist --workers 2 --run-dir runs/resnet-ist-2

    python -m experiments.convnet --dataset aid --data-dir data/AID --model vgg12 --image-size 64 \
        --strategy ist --workers 4 --run-dir runs/vgg-ist-4

Yuan et al. (VLDB 2022), §3.1, train the last stage of a ResNet and the dense part of a VGG-12 by
independent subnet training. With `--strategy ist` every worker has some of the channels of
ResNet-18's last stage and some of its blocks (`--neurons`), or some neurons of VGG-12's dense part;
what is on every worker is averaged. Images are held as uint8 on the devices, and cropped and
mirrored there. BatchNorm's running averages are measured on the full network after every epoch.

Writes `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/` and `summary.json`. The same
command with the same `--run-dir` resumes where it stopped, with the same bits on a CPU with as many
cores. A run cannot be extended by more `--epochs`: its learning rate falls until the last.

Expected on 2 CPU cores, 50,000 images of 32 pixels: ResNet-18 an hour an epoch, so a GPU is wanted.
"""

import dataclasses
import pathlib

import jax
from flax import nnx

from experiments.command import processes
from experiments.command.cli import run
from experiments.command.errors import UsageError
from experiments.command.options import ProcessOptions, pick
from experiments.figures.results import print_results
from experiments.runs.end_to_end import (
    EndToEndOptions,
    build_strategy,
    build_task,
    open_splits,
    train_end_to_end,
    worker_steps,
)
from jist.finetuning import Cropped, momentum_sgd, read_images
from jist.models import VGG12, ImageClassifier, Preprocessing, ResNet18

NAME = "convnet"
MODELS = ("resnet18", "vgg12")
SMALL = 64  # pixels up to which ResNet-18 has the stem of small images


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvnetOptions(EndToEndOptions):
    """Options of training networks of convolutions."""

    model: str = "resnet18"
    """resnet18 (with the stem of small images up to 64 pixels) or vgg12."""
    image_size: int = 32
    """Side to which images are resized, in pixels; of vgg12 a multiple of 32."""
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


def build_network(options: ConvnetOptions, classes: int) -> ImageClassifier:
    """The network before training, its neurons named.

    Raises:
        ValueError: as `ResNet18` or `VGG12`.
    """
    rngs = nnx.Rngs(options.seed)
    network: nnx.Module
    if options.model == "vgg12":
        network = VGG12(options.image_size, classes, hidden=options.hidden, rngs=rngs)
    else:
        small = options.image_size <= SMALL
        network = ResNet18(classes, neurons=options.neurons, small=small, rngs=rngs)
    return ImageClassifier(network, views=Cropped(options.least_crop), rngs=rngs)


def main(options: ConvnetOptions) -> None:
    """Trains, and evaluates every epoch."""
    processes.join(pick(options, ProcessOptions))
    splits = open_splits(options.images)
    train_set = splits["train"]
    model = build_network(options, len(train_set.class_names))
    task, steps = build_task(options), worker_steps(options, len(train_set))
    optimizer = momentum_sgd(
        options.learning_rate,
        steps=steps,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
    )
    strategy = build_strategy(options, model, optimizer, task)
    found = {
        split: {
            "x": read_images(images, options.image_size, Preprocessing().interpolation),
            "y": images.labels,
        }
        for split, images in splits.items()
    }
    result = train_end_to_end(
        NAME,
        options,
        strategy,
        task,
        found["train"],
        found["test"],
        labels=train_set.labels,
        class_names=train_set.class_names,
        pinned={},
        validation=found.get("validation"),
        ratio=0.0,
        mask="fixed",
    )
    if jax.process_index() == 0:
        print_results([result])


if __name__ == "__main__":
    run(main, ConvnetOptions, __doc__ or "")
