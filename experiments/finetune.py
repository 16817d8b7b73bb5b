r"""Trains an encoder and its head end to end, from the visible patches of an image to its class.

    python -m experiments.finetune --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --run-dir runs/ft

    python -m experiments.finetune --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --strategy ist --workers 2 --correction reconstruct --local-steps 25 --epochs 20 \
        --run-dir runs/ft-ist-2

Kariotakis et al. (CPAL 2024) freeze the encoder and name "IST into Transformer models" as future
work. With `--strategy ist` every worker trains some neurons of each block's MLP and some attention
heads of each block, or some whole blocks (`--neurons`); with `--correction reconstruct` it guesses
what the others give from its own. Tokens that are not visible cost nothing, in training too. Images
are held as uint8 on the devices, and cropped and mirrored there.

Writes `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`, `summary.json` and
`encoder/`, which every other script takes as `--encoder runs/ft/encoder`. The same command with the
same `--run-dir` resumes where it stopped, with the same bits on a CPU with as many cores. A run
cannot be extended by more `--epochs`: the schedule of its learning rate depends on the last.

Expected for the first command, on 2 CPU cores with AMX: about a minute an epoch.
"""

import dataclasses

import jax

from experiments.command import processes
from experiments.command.cli import run
from experiments.command.cpu import has_matrix_unit
from experiments.command.options import BANDS, ProcessOptions, pick
from experiments.figures.results import print_results
from experiments.runs import hub
from experiments.runs.bands import in_full
from experiments.runs.end_to_end import build_task, open_splits
from experiments.runs.end_to_end_training import train_end_to_end
from experiments.runs.finetuning import FinetuneOptions, build_classifier, build_finetuning
from experiments.runs.remarks import say_how_resized
from jist import trainer
from jist.finetuning import MaskedImages
from jist.models import Classifier, digest, save_encoder, unnamed
from jist.strategies import Strategy
from jist.tasks import Task

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
    task = build_task(options)
    model = build_classifier(options, len(train_set.class_names))
    say_how_resized(train_set, model.encoder)
    strategy = build_finetuning(options, model, task, len(train_set))
    given = {"ratio": options.mask_ratio, "seed": options.seed}
    seen = {split: MaskedImages(of, model.encoder, **given) for split, of in splits.items()}
    train = seen.pop("train")
    random = options.random and options.mask_ratio > 0
    result = train_end_to_end(
        NAME,
        options,
        strategy,
        task,
        trainer.Renewed(train.fixed, train.random) if random else train.fixed,
        {split: images.fixed for split, images in seen.items()},
        labels=train_set.labels,
        class_names=train_set.class_names,
        pinned={
            "encoder_sha256": digest(unnamed(model.encoder)),
            **hub.revision(options.encoder),
        },
        ratio=options.mask_ratio,
    )
    if jax.process_index() == 0:
        write_encoder(options, strategy, task)
        print_results([result])
        print(f"written: {options.run_dir / 'encoder'}")


def write_encoder(options: FinetuneOptions, strategy: Strategy, task: Task) -> None:
    """Writes the encoder of the last epoch."""
    checkpoints = options.run_dir / "checkpoints"
    model = trainer.restore_model(strategy, checkpoints, "last", task=task)
    assert isinstance(model, Classifier)
    origin = {"encoder": options.encoder, "fine_tuned_on": options.dataset, "split": "train"}
    epochs = {"epochs": options.epochs, "mask_ratio": options.mask_ratio}
    encoder = unnamed(model.encoder)
    save_encoder(encoder, options.run_dir / "encoder", source=origin | epochs, overwrite=True)


if __name__ == "__main__":
    run(main, FinetuneOptions, __doc__ or "")
