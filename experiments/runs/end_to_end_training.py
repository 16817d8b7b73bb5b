"""The training of a network end to end, in a run directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.command.options import (
    BANDS,
    NATURAL,
    ProcessOptions,
    StrategyOptions,
    pick,
)
from experiments.runs.calibration import results_of, truth_of
from experiments.runs.directory import RunDirectory
from experiments.runs.end_to_end import EVALUATED_AT_ONCE, EndToEndOptions
from experiments.runs.heads import say_exchange, worker_pools
from experiments.runs.images import progress_bar
from experiments.runs.outcome import chosen
from experiments.runs.remarks import say_batch
from jist import trainer
from jist.evaluation import predict
from jist.metrics import MetricsLog
from jist.strategies import Strategy
from jist.tasks import Examples, Task, count

# Why a run cannot be resumed with another value.
REASONS = {
    "epochs": "the learning rate falls along a cosine that ends with the last epoch, so a longer "
    "run differs from its first step"
}
# Options that do not change the result, and may differ when a run resumes.
FREE = ("run_dir", "debug", "data_dir", "resident_gb", "checkpoint_every")


def configuration(options: EndToEndOptions, examples: int) -> dict[str, Any]:
    """The options that decide the result, given the number of training images."""
    config = dataclasses.asdict(options)
    groups = (*dataclasses.fields(ProcessOptions), *dataclasses.fields(StrategyOptions))
    for name in (*FREE, *(field.name for field in groups)):
        del config[name]
    # Runs are gone on with that are older than these options.
    usual = dict.fromkeys(BANDS) | NATURAL | {"mixup": 0.0}
    config = {n: of for n, of in config.items() if n not in usual or of != usual[n]}
    if not options.calibration:  # as of runs from before there was any
        del config["calibration"]
    config["batch_size"] = options.batch_of(examples)
    return config | pick(options, StrategyOptions).config()


def train_end_to_end(
    name: str,
    options: EndToEndOptions,
    strategy: Strategy,
    task: Task,
    train: Examples | trainer.Renewed,
    others: Mapping[str, Examples],
    *,
    labels: np.ndarray,
    class_names: Sequence[str],
    pinned: Mapping[str, str],
    **facts: Any,
) -> dict[str, Any]:
    """Trains, evaluates after every epoch, and adds the result to the run directory.

    Args:
        name: of the experiment.
        options: of the script.
        strategy: as `build_strategy`.
        task: as `build_task`.
        train: training examples, or those of every epoch.
        others: "test" examples, and those of the other splits of `open_splits`.
        labels: the classes of the training examples [N].
        class_names: their names.
        pinned: digests that must be the same when a run resumes.
        **facts: what the result says besides; `ratio`, the masking ratio, always.

    Returns:
        The result.

    Raises:
        UsageError: the directory is of another configuration; or as `jist.trainer.train`.
    """
    config, how = configuration(options, len(labels)), pick(options, StrategyOptions)
    if "validation" in others:
        config["own_validation"] = True  # chooses the epoch; runs without one do not mention it
    say_exchange(how, strategy)
    say_batch(config["batch_size"], options.batch_size, how.workers, len(labels))
    directory = RunDirectory(
        options.run_dir,
        {"experiment": name} | config,
        reasons=REASONS,
        data_dir=options.data_dir,
    )
    directory.pin(dict(pinned))
    directory.note_devices(name, strategy.mesh.size, options.epochs)
    test, validation = others["test"], others.get("validation")
    temperature_examples = validation or others.get("calibration")
    checkpoints = options.run_dir / "checkpoints"
    with progress_bar() as progress, MetricsLog(options.run_dir, name) as log:
        history = trainer.train(
            strategy,
            train,
            test,
            epochs=options.epochs,
            batch_size=config["batch_size"],
            seed=options.seed,
            checkpoints=checkpoints,
            log=log,
            task=task,
            validation_examples=validation,
            temperature_examples=temperature_examples,
            checkpoint_every=options.checkpoint_every,
            # In one pass of the network, so no more images than in one of an evaluation.
            calibration_examples=EVALUATED_AT_ONCE,
            pools=worker_pools(how, labels, options.seed),
            progress=progress,
            description=f"{name}, {options.strategy}, {options.workers} worker(s)",
        )
    last, probabilities = history[-1], {}
    if temperature_examples is not None:
        model, temperature, _ = trainer.restore_calibrated(
            strategy, checkpoints, "last", task=task, validation=validation is not None
        )
        logits = np.asarray(predict(model, test["x"], task.examples_at_once))
        truth = truth_of(logits, np.asarray(test["y"]), strategy.workers, temperature)
        probabilities = results_of(truth)
    result = {
        "run": name,
        **{name: value for name, value in config.items() if name != "mask_ratio"},
        **dataclasses.asdict(how),
        "exchange": strategy.exchange,
        **facts,
        "train_examples": len(labels),
        **{
            f"{name}_examples": count(others[name]) if name in others else 0
            for name in ("validation", "calibration")
        },
        "test_examples": count(test),
        **chosen(history, task),
        **{name: last[name] for name in ("test_loss", "bytes_received_per_worker")},
        **probabilities,
        "parameters_per_worker": strategy.parameters_per_worker,
        "flops_per_worker": last["flops_per_worker"],
        "training_seconds": round(sum(metrics["seconds"] for metrics in history), 3),
    }
    directory.add_result(result, list(class_names))
    return result
