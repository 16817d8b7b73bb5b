r"""Trains an encoder and its head end to end, from the visible patches of an image to its class.

    python -m experiments.finetune --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --run-dir runs/ft

    python -m experiments.finetune --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --strategy ist --workers 2 --neurons mlp channels --correction reconstruct \
        --local-steps 25 --learning-rate 2e-3 --epochs 20 --run-dir runs/ft-ist-2

Kariotakis et al. (CPAL 2024) freeze the encoder and name "IST into Transformer models" as future
work. With `--strategy ist` every worker trains some neurons of each block's MLP and some attention
heads of each block, some channels of every head, or some whole blocks (`--neurons`); with
`--correction reconstruct` it guesses what the others give from its own. Tokens that are not visible
cost nothing, in training too; under natural masks (`--natural-masks`, `--simulate-clouds`,
`--quality-band`) all images cost as much as the one that shows most. Images are held as uint8 on
the devices, or decoded whenever they are used (`--resident-gb`), and cropped and mirrored there.

Writes `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`, `summary.json` and
`encoder/`, which every other script takes as `--encoder runs/ft/encoder`. The same command with the
same `--run-dir` resumes where it stopped, with the same bits on a CPU with as many cores. A run
cannot be extended by more `--epochs`: the schedule of its learning rate depends on the last.

Expected for the first command, on 2 CPU cores with AMX: about a minute an epoch.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.command import processes
from experiments.command.cli import run
from experiments.command.cpu import has_matrix_unit
from experiments.command.options import BANDS, ProcessOptions, pick
from experiments.figures.results import print_results
from experiments.runs import hub
from experiments.runs.bands import in_full
from experiments.runs.end_to_end import open_splits, stay_in_memory
from experiments.runs.end_to_end_training import train_end_to_end
from experiments.runs.finetuning import (
    FinetuneOptions,
    build_classifier,
    build_finetuning,
    finetuning_task,
)
from experiments.runs.network_images import NetworkInputs
from experiments.runs.remarks import say_how_resized, say_missing, say_what_is_missing
from jist import trainer
from jist.data import Dataset
from jist.finetuning import MaskedImages
from jist.models import Classifier, digest, save_encoder, unnamed
from jist.strategies import Strategy
from jist.tasks import Examples, Task

NAME = "finetune"


def main(options: FinetuneOptions) -> None:
    """Trains, evaluates every epoch, and writes the encoder at the end."""
    processes.join(pick(options, ProcessOptions))
    if options.dtype == "auto":  # decided once: a resumed run keeps its type on any machine
        fast = jax.default_backend() != "cpu" or has_matrix_unit()
        options = dataclasses.replace(options, dtype="bfloat16" if fast else "float32")
    images = in_full(options.images)
    options = dataclasses.replace(options, **{name: getattr(images, name) for name in BANDS})
    splits = open_splits(options)
    train_set = splits["train"]
    task = finetuning_task(options)
    model = build_classifier(options, len(train_set.class_names))
    say_how_resized(train_set, model.encoder)
    if options.natural:
        seen = naturally_masked(options, splits, model, task)
    else:
        say_what_is_missing(train_set)
        seen = masked(options, splits, model)
    strategy = build_finetuning(options, model, task, len(seen.labels))
    result = train_end_to_end(
        NAME,
        options,
        strategy,
        task,
        seen.train,
        seen.others,
        labels=seen.labels,
        class_names=train_set.class_names,
        pinned={
            "encoder_sha256": digest(unnamed(model.encoder)),
            **hub.revision(options.encoder),
        },
        **seen.facts,
    )
    if jax.process_index() == 0:
        write_encoder(options, strategy, task)
        print_results([result])
        print(f"written: {options.run_dir / 'encoder'}")


class Seen(NamedTuple):
    """What the network sees.

    Attributes:
        train: training examples, or those of every epoch.
        others: those of the other splits.
        labels: the classes of the training examples [N].
        facts: what the result says of the masks.
    """

    train: Examples | trainer.Renewed
    others: dict[str, Examples]
    labels: np.ndarray
    facts: dict[str, Any]


def masked(options: FinetuneOptions, splits: dict[str, Dataset], model: Classifier) -> Seen:
    """Images under drawn masks."""
    given: dict[str, Any] = {"ratio": options.ratio, "seed": options.seed}
    given["resident"] = stay_in_memory(options, splits, model.encoder.config.image_size)
    seen = {split: MaskedImages(of, model.encoder, **given) for split, of in splits.items()}
    train = seen.pop("train")
    random = options.random and options.ratio > 0
    return Seen(
        trainer.Renewed(train.fixed, train.random) if random else train.fixed,
        {split: images.fixed for split, images in seen.items()},
        splits["train"].labels,
        {"ratio": options.ratio},
    )


def naturally_masked(
    options: FinetuneOptions, splits: dict[str, Dataset], model: Classifier, task: Task
) -> Seen:
    """Images under their own masks; says how much is missing.

    Raises:
        EmptyImageError: nothing of an image is visible, and none may be left out.
    """
    inputs = NetworkInputs(options.images, model, task, model.encoder.config.image_size)
    found = {split: inputs.seen(of, 0.0) for split, of in splits.items()}
    for split, of in found.items():
        say_missing(split, of.attributes)
    examples = {split: without_padding(of.examples()) for split, of in found.items()}
    noted = found["train"].attributes
    facts = {
        "ratio": round(noted["missing_share"], 4),
        "mask": "natural",
        "missing_pixels": round(noted["missing_pixels"], 4),
    }
    return Seen(examples.pop("train"), examples, found["train"].label, facts)


def without_padding(examples: Examples) -> Examples:
    """Examples with as many columns of patches as the image has that shows most."""
    most = int(examples["x"]["valid"].sum(axis=1).max())
    x = examples["x"] | {name: examples["x"][name][:, :most] for name in ("keep", "valid")}
    return examples | {"x": x}


def write_encoder(options: FinetuneOptions, strategy: Strategy, task: Task) -> None:
    """Writes the encoder of the last epoch."""
    checkpoints = options.run_dir / "checkpoints"
    model = trainer.restore_model(strategy, checkpoints, "last", task=task)
    assert isinstance(model, Classifier)
    origin = {"encoder": options.encoder, "fine_tuned_on": options.dataset, "split": "train"}
    epochs = {"epochs": options.epochs, "mask_ratio": options.ratio}
    encoder = unnamed(model.encoder)
    save_encoder(encoder, options.run_dir / "encoder", source=origin | epochs, overwrite=True)


if __name__ == "__main__":
    run(main, FinetuneOptions, __doc__ or "")
