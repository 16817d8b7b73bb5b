r"""Trains an encoder and its head end to end, from the visible patches of an image to its class.

    python -m experiments.finetune --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --run-dir runs/ft

    python -m experiments.finetune --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --strategy ist --workers 2 --epochs 20 --run-dir runs/ft-ist-2

Kariotakis et al. (CPAL 2024) freeze the encoder and name "IST into Transformer models" as future
work. With `--strategy ist` every worker trains some neurons of each block's MLP and some attention
heads of each block, or some whole blocks (`--neurons`). Tokens that are not visible cost nothing,
in training too. Images are held as uint8 on the devices, and cropped and mirrored there.

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
from experiments.command.options import BANDS, ProcessOptions, StrategyOptions, pick
from experiments.figures.results import print_results
from experiments.runs.classification import chosen
from experiments.runs.directory import RunDirectory
from experiments.runs.finetuning import (
    FinetuneOptions,
    build_classifier,
    build_finetuning,
    build_task,
)
from experiments.runs.heads import say_exchange, worker_pools
from experiments.runs.images import dataset_of, in_full, progress_bar
from jist import trainer
from jist.finetuning import MaskedImages
from jist.metrics import MetricsLog
from jist.models import Classifier, digest, save_encoder, unnamed
from jist.strategies import Strategy
from jist.tasks import Task

# Why a run cannot be resumed with another value.
REASONS = {
    "epochs": "the learning rate falls along a cosine that ends with the last epoch, so a longer "
    "run differs from its first step"
}
# Options that do not change the result, and may differ when a run resumes.
FREE = ("run_dir", "debug", "data_dir")
NAME = "finetune"


def main(options: FinetuneOptions) -> None:
    """Trains, evaluates every epoch, and writes the encoder at the end."""
    processes.join(pick(options, ProcessOptions))
    if options.dtype == "auto":  # decided once: a resumed run keeps its type on any machine
        fast = jax.default_backend() != "cpu" or has_matrix_unit()
        options = dataclasses.replace(options, dtype="bfloat16" if fast else "float32")
    images = in_full(options.images)
    options = dataclasses.replace(options, **{name: getattr(images, name) for name in BANDS})
    how = pick(options, StrategyOptions)
    config = dataclasses.asdict(options)
    groups = (*dataclasses.fields(ProcessOptions), *dataclasses.fields(StrategyOptions))
    for name in (*FREE, *(field.name for field in groups)):
        del config[name]
    config = {n: of for n, of in config.items() if of is not None or n not in BANDS}
    config |= how.config()
    train_set, test_set = (dataset_of(options.images, split) for split in ("train", "test"))
    task = build_task(options)
    model = build_classifier(options, len(train_set.class_names))
    strategy = build_finetuning(options, model, task, len(train_set))
    say_exchange(how, strategy)
    directory = RunDirectory(options.run_dir, {"experiment": NAME} | config, reasons=REASONS)
    directory.pin({"encoder_sha256": digest(unnamed(model.encoder))})
    given = {"ratio": options.mask_ratio, "seed": options.seed}
    train, test = (MaskedImages(images, model.encoder, **given) for images in (train_set, test_set))
    random = options.random and options.mask_ratio > 0
    with progress_bar() as progress, MetricsLog(options.run_dir, NAME) as log:
        history = trainer.train(
            strategy,
            trainer.Renewed(train.fixed, train.random) if random else train.fixed,
            test.fixed,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            checkpoints=options.run_dir / "checkpoints",
            log=log,
            task=task,
            pools=worker_pools(how, train_set.labels, options.seed),
            progress=progress,
            description=f"fine-tuning, {options.strategy}, {options.workers} worker(s)",
        )
    last = history[-1]
    result = {
        "run": NAME,
        **{name: value for name, value in config.items() if name != "mask_ratio"},
        **dataclasses.asdict(how),
        "exchange": strategy.exchange,
        "ratio": options.mask_ratio,
        "train_examples": len(train_set),
        "test_examples": len(test_set),
        **chosen(history, task),
        **{name: last[name] for name in ("test_loss", "bytes_received_per_worker")},
        "parameters_per_worker": strategy.parameters_per_worker,
        "flops_per_worker": last["flops_per_worker"],
        "training_seconds": round(sum(metrics["seconds"] for metrics in history), 3),
    }
    directory.add_result(result, list(train_set.class_names))
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
