r"""Trains a ResNet-18 or a VGG-12 from scratch on whole images, by any strategy.

    python -m experiments.convnet --dataset folder:data/cifar10 --model resnet18 \
        --strategy ist --workers 2 --run-dir runs/resnet-ist-2

    python -m experiments.convnet --dataset aid --data-dir data/AID --model vgg12 --image-size 64 \
        --strategy ist --workers 4 --run-dir runs/vgg-ist-4

Yuan et al. (VLDB 2022), §3.1, train the last stage of a ResNet and the dense part of a VGG-12 by
independent subnet training. With `--strategy ist` every worker has some of the channels of
ResNet-18's last stage and some of its blocks (`--neurons`), or some neurons of VGG-12's dense part;
what is on every worker is averaged. Images are held as uint8 on the devices, or decoded whenever
they are used (`--resident-gb`), and cropped and mirrored there. BatchNorm's running averages are
measured on the full network after every epoch.

Writes `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/` and `summary.json`. The same
command with the same `--run-dir` resumes where it stopped, with the same bits on a CPU with as many
cores. A run cannot be extended by more `--epochs`: its learning rate falls until the last.

Expected on 2 CPU cores, 50,000 images of 32 pixels: ResNet-18 a quarter of an hour an epoch, so a
GPU is wanted.
"""

import jax

from experiments.command import processes
from experiments.command.cli import run
from experiments.command.options import ProcessOptions, pick
from experiments.figures.results import print_results
from experiments.runs.convolutional import ConvnetOptions, build_network, build_training
from experiments.runs.end_to_end import build_task, open_splits, stay_in_memory
from experiments.runs.end_to_end_training import train_end_to_end
from experiments.runs.remarks import say_what_is_missing
from jist.finetuning import read_images

NAME = "convnet"


def main(options: ConvnetOptions) -> None:
    """Trains, and evaluates every epoch."""
    processes.join(pick(options, ProcessOptions))
    splits = open_splits(options)
    train_set = splits["train"]
    say_what_is_missing(train_set)
    model = build_network(options, len(train_set.class_names))
    task = build_task(options)
    strategy = build_training(options, model, task, len(train_set))
    seen = {
        "image_size": options.image_size,
        "preprocessing": model.preprocessing,
        "resident": stay_in_memory(options, splits, options.image_size),
    }
    found = {
        split: {"x": read_images(images, **seen), "y": images.labels}
        for split, images in splits.items()
    }
    result = train_end_to_end(
        NAME,
        options,
        strategy,
        task,
        found.pop("train"),
        found,
        labels=train_set.labels,
        class_names=train_set.class_names,
        pinned={},
        ratio=0.0,
        mask="fixed",
    )
    if jax.process_index() == 0:
        print_results([result])


if __name__ == "__main__":
    run(main, ConvnetOptions, __doc__ or "")
