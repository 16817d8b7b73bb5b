"""A run's checkpoints, restored in a new process and evaluated on the test images.

    python -m experiments.evaluate --run-dir runs/cifar10-ist-4

Prints accuracy, loss and the accuracy of every class, and writes them to `evaluation.json` in the
run directory. The accuracy of the last checkpoint equals that of the training's last line in
`metrics.jsonl`. Unfinished trainings are named and left out. Expected: seconds.
"""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.runs.classification import restore_head, restore_inputs
from experiments.runs.directory import features_of, read_part, write_json
from experiments.runs.heads import TASK, examples
from experiments.runs.images import progress_bar
from experiments.runs.plan import Plan
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
    evaluations = {}
    for training in plan.trainings:
        if not plan.is_done(training, results):
            print(f"left out, not trained to the end: {training.name}")
            continue
        model, class_names = restore_head(
            options.run_dir, plan, training, inputs, options.checkpoint
        )
        with progress_bar() as progress:
            stores = inputs.features(training.mask_ratio, features_dir, progress)
        test = examples(stores["test"])
        right = np.asarray(jnp.argmax(predict(model, test["x"]), axis=-1) == test["y"])
        labels = stores["test"].label
        evaluations[training.name] = evaluate(model, test, TASK) | {
            "checkpoint": options.checkpoint,
            "class_accuracy": {
                name: float(right[labels == i].mean()) if (labels == i).any() else None
                for i, name in enumerate(class_names)
            },
        }
    table = Table(title=f"Test images, {options.checkpoint} checkpoint")
    for column in ("training", TASK.best, "loss", "accuracy by class"):
        table.add_column(column)
    for name, evaluation in evaluations.items():
        by_class = "\n".join(
            f"{c}: {'no test images' if a is None else f'{a:.1%}'}"
            for c, a in evaluation["class_accuracy"].items()
        )
        best, loss = evaluation[f"test_{TASK.best}"], evaluation["test_loss"]
        table.add_row(name, f"{best:.2%}", f"{loss:.4f}", by_class)
    Console().print(table)
    write_json(options.run_dir / "evaluation.json", evaluations)
    print(f"written: {options.run_dir}/evaluation.json")


if __name__ == "__main__":
    run(main, EvaluateOptions, __doc__ or "")
