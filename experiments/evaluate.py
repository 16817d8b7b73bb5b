"""A run's checkpoints, restored in a new process and evaluated on the test images.

    python -m experiments.evaluate --run-dir runs/cifar10-ist-4

Prints accuracy, loss and the accuracy of every class, and writes them to `evaluation.json` in the
run directory. Says how true the probabilities of classes are: expected calibration error (ECE, 15
bins), negative log-likelihood in nats and Brier score, of the logits as they are, divided by the
number of workers, and by the temperature that was fitted on held-out training examples, which is
what `predict` uses. `reliability.png` shows it.

The accuracy of the last checkpoint equals that of the training's last line in `metrics.jsonl`.
Unfinished trainings are named and left out. Expected: seconds.
"""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.figures.reliability import plot_reliability, print_truths
from experiments.runs.calibration import Truth, truth_of
from experiments.runs.classification import restore_head, restore_inputs
from experiments.runs.directory import features_of, read_part, write_json
from experiments.runs.images import progress_bar
from experiments.runs.plan import Plan
from experiments.runs.splits import Split
from jist.evaluation import evaluate, predict


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Options of evaluation."""

    run_dir: pathlib.Path
    """The run directory."""
    checkpoint: str = "last"
    """Which checkpoint of each training: last, or best by validation, else by test accuracy."""
    features_dir: pathlib.Path | None = None
    """Where the run's features are; by default where the run stored them."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45 or aid."""


def main(options: EvaluateOptions) -> None:
    """Restores, evaluates and reports."""
    plan = Plan.from_config(read_part(options.run_dir, "config.json"))
    results = {r["run"]: r for r in read_part(options.run_dir, "summary.json")["results"]}
    images = dataclasses.replace(plan.images, data_dir=options.data_dir)
    features_dir = options.features_dir or features_of(options.run_dir)
    inputs = restore_inputs(options.run_dir, images)
    evaluations: dict[str, dict[str, Any]] = {}
    truths: dict[str, Truth] = {}
    for training in plan.trainings:
        if not plan.is_done(training, results):
            print(f"left out, not trained to the end: {training.name}")
            continue
        model, class_names, temperature = restore_head(
            options.run_dir, plan, training, inputs, options.checkpoint
        )
        with progress_bar() as progress:
            split = inputs.splits(training.mask_ratio, features_dir, progress)["test"]
        evaluations[training.name] = evaluate(model, split.examples(), inputs.task) | {
            "checkpoint": options.checkpoint
        }
        if split.label is not None:
            found = class_accuracy(model, split, class_names)
            truth = truth_of(model, split.examples(), training.how.workers, temperature)
            truths[training.name] = truth
            evaluations[training.name] |= {"class_accuracy": found} | described(truth)
    print_evaluations(evaluations, inputs.task.best, options.checkpoint)
    write_json(options.run_dir / "evaluation.json", evaluations)
    print(f"written: {options.run_dir}/evaluation.json")
    if truths:
        print_truths(truths)
        plot_reliability(truths, options.run_dir / "reliability.png")
        print(f"written: {options.run_dir}/reliability.png")


def described(truth: Truth) -> dict[str, Any]:
    """How true probabilities are, for the JSON file."""
    measured = {f"test_{name}": value for name, value in truth.best.metrics.items()}
    before = {name: of.metrics for name, of in truth.named.items()}
    return (
        {"temperature": truth.temperature}
        | measured
        | {
            "calibration": before,
            "reliability": truth.best.bins,
        }
    )


def class_accuracy(
    model: nnx.Module, split: Split, class_names: list[str]
) -> dict[str, float | None]:
    """The accuracy of every class; None where there is no example of it."""
    examples = split.examples()
    right = np.asarray(jnp.argmax(predict(model, examples["x"]), axis=-1) == examples["y"])
    of_class = {name: right[split.label == i] for i, name in enumerate(class_names)}
    return {name: float(some.mean()) if len(some) else None for name, some in of_class.items()}


def print_evaluations(evaluations: dict[str, dict[str, Any]], best: str, checkpoint: str) -> None:
    """Prints a row for each training: what chose its epoch, its loss, and the rest."""
    table = Table(title=f"Test examples, {checkpoint} checkpoint")
    for column in ("training", best.replace("_", " "), "loss", "in detail"):
        table.add_column(column)
    for name, evaluation in evaluations.items():
        by_class = evaluation.get("class_accuracy") or {
            metric.removeprefix("test_").replace("_", " "): value
            for metric, value in evaluation.items()
            if metric.startswith("test_") and metric != "test_loss"
        }
        lines = (
            f"{c}: {'no test examples' if a is None else f'{a:.1%}'}" for c, a in by_class.items()
        )
        loss = f"{evaluation['test_loss']:.4f}"
        table.add_row(name, f"{evaluation[f'test_{best}']:.2%}", loss, "\n".join(lines))
    Console().print(table)


if __name__ == "__main__":
    run(main, EvaluateOptions, __doc__ or "")
