r"""A run's checkpoints, restored in a new process and evaluated on the test images, or on others.

    python -m experiments.evaluate --run-dir runs/cifar10-ist-4

    python -m experiments.evaluate --run-dir runs/cifar10-ist-4 --mask-ratio 0 0.5 0.75 0.9 \
        --out ratios.csv

Prints accuracy, loss and the accuracy of every class, and writes them to `evaluation.json` in the
run directory, with precision, recall and F1 of every class and the confusion matrix (rows are true
classes). Says how true the probabilities of classes are: expected calibration error (ECE, 15 bins),
negative log-likelihood in nats and Brier score, of the logits as they are, divided by the number of
workers, and by the temperature that was fitted on validation or held-out training examples, which
is what `predict` uses. `reliability.png` shows it. Where examples may have several labels, the
error is of the five likeliest of each, the others are sums over all labels; probabilities are of
the outputs divided by a temperature and moved by an offset, both fitted.

Without further options the accuracy of the last checkpoint equals that of the training's last line
in `metrics.jsonl`. With some, heads and temperatures stay as they are and the test images change:
other masks, clouds, or another data set, whose classes the run must know; of a folder without
`train/` and `test/`, or a file of vectors without a split, all examples count. Several ratios or
shares of clouds make a curve, `curve.png`. Features are kept beside the run's. Unfinished trainings
are named and left out.

Takes runs of every script that trains classifiers, `finetune` and `convnet` among them; a network
of convolutions sees images whole, so that masks are refused. Expected: seconds, and as long as
other images or masks take to encode.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.evaluations import draw_sheet, plot_curve
from experiments.figures.reliability import MEASURES, plot_reliability, print_truths
from experiments.runs.calibration import Truth, truth_of
from experiments.runs.classwise import Predictions, by_class, predictions_of
from experiments.runs.conditions import Condition, Tested, one_split, tested
from experiments.runs.directory import features_of, write_json
from experiments.runs.images import progress_bar
from experiments.runs.label_truth import label_truth_of
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.splits import ClassSplit
from experiments.runs.tables import check_out, write_records
from experiments.runs.trained import open_run
from jist.evaluation import evaluate, predict

OF_PROBABILITIES = ("loss", *MEASURES)  # which are no shares, and stand elsewhere
SHOWN = 25  # mistakes on a contact sheet


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
    """Where the data are, as of training: those of --dataset, if it is given; by default where the
    run found its own."""
    dataset: str | None = None
    """Another data set of the same kind and classes, in the place of the run's."""
    labels: str | None = None
    """--dataset features:PATH: the column or array of its labels, or a .npy or .txt file of them;
    by default the column or array that the run's are in, or as for training."""
    mask_ratio: tuple[float, ...] = ()
    """Masking ratios of fixed masks, in the place of the run's masks."""
    simulate_clouds: tuple[float, ...] = ()
    """Shares of every image under simulated clouds, in (0, 1), in the place of the run's masks."""
    natural_masks: bool = False
    """Use the images' own missing pixels: transparent ones, or those not zero in NAME.mask.png."""
    no_data: int | None = None
    """The value that stands for a missing pixel in every channel, of natural masks."""
    max_missing: float = 0.0
    """Share of a visible patch that may be missing under clouds and natural masks, in [0, 1)."""
    out: pathlib.Path | None = None
    """A file for the evaluations, one row for each training and condition: .csv, .json or .parquet;
    .json holds confusion matrices, too."""
    mistakes: pathlib.Path | None = None
    """A PNG to draw the surest mistakes into, of the first training and condition."""

    @property
    def conditions(self) -> list[Condition]:
        """What the run is tested on beside its own test examples; none by default."""
        natural = {"no_data": self.no_data, "max_missing": self.max_missing}
        masks: list[dict[str, Any]] = [{"mask_ratio": ratio} for ratio in self.mask_ratio]
        masks += [{"simulate_clouds": share, **natural} for share in self.simulate_clouds]
        if self.natural_masks or (self.no_data is not None and not self.simulate_clouds):
            masks.append({"natural_masks": self.natural_masks, **natural})
        if self.max_missing and not self.simulate_clouds and not self.natural_masks:
            raise UsageError("--max-missing needs --natural-masks or --simulate-clouds")
        if self.dataset is not None and not masks:
            masks = [{}]
        if self.labels is not None and self.dataset is None:
            raise UsageError("--labels needs --dataset features:PATH")
        return [Condition(dataset=self.dataset, labels=self.labels, **of) for of in masks]


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What was measured of one training under one condition.

    Attributes:
        training: its name.
        condition: what it was tested on; None for its own test examples.
        record: everything, as JSON.
        truth: how true its probabilities are.
        sheet: the surest mistakes, text and image, if they are wanted.
    """

    training: str
    condition: Condition | None
    record: dict[str, Any]
    truth: Truth | None
    sheet: list[tuple[str, Any]]

    @property
    def name(self) -> str:
        """Training and condition."""
        return self.training if self.condition is None else f"{self.training}, {self.condition}"


def main(options: EvaluateOptions) -> None:
    """Restores, evaluates and reports."""
    check_out(options.out, (".csv", ".json", ".parquet"))
    if options.mistakes is not None and options.mistakes.suffix.lower() != ".png":
        raise UsageError(f"mistakes must end in .png, got {options.mistakes}")
    own_dir = options.data_dir if options.dataset is None else None  # else of the other data set
    trained = open_run(options.run_dir, own_dir)
    inputs, images = trained.inputs, trained.images
    if options.dataset is not None:
        images = dataclasses.replace(images, data_dir=options.data_dir)
    features_dir, conditions = (
        options.features_dir or features_of(options.run_dir),
        options.conditions,
    )
    evaluations: list[Evaluated] = []
    for training in trained.names:
        if not trained.is_done(training):
            print(f"left out, not trained to the end: {training}")
            continue
        head = trained.restore(training, options.checkpoint)
        model, class_names, temperature, _ = head
        ratio = trained.ratio(training)
        for condition in conditions or [None]:
            with progress_bar() as progress:
                if condition is None:
                    own = 0.0 if images.natural else ratio
                    split = one_split(inputs, "test", own, features_dir, progress)
                    given = (("test", inputs, split),) if isinstance(split, ClassSplit) else ()
                    examples = split.examples()
                    found = Tested(given, np.asarray(examples["y"])) if given else None
                else:
                    found = tested(
                        inputs, condition, images, ratio, class_names, features_dir, progress
                    )
                    examples = found.examples
            record: dict[str, Any] = {"training": training, "checkpoint": options.checkpoint}
            record |= {} if condition is None else {"condition": str(condition)}
            record |= evaluate(model, examples, inputs.task)
            truth, sheet = None, []
            if found is not None:
                at_once = inputs.task.examples_at_once
                logits = np.asarray(predict(model, examples["x"], at_once))
                truth = truth_of(logits, found.label, trained.workers(training), temperature)
                predictions = predictions_of(logits, found.label, temperature)
                record |= described(found, condition, ratio) | measured(truth)
                record |= by_class(predictions, class_names)
                if options.mistakes is not None and not evaluations:
                    sheet = surest(found, predictions, class_names)
            elif isinstance(inputs, ManyLabelInputs):
                loss = inputs.options.multilabel_loss
                truth = label_truth_of(model, examples, head.scaling, loss)
                record |= measured(truth)
            evaluations.append(Evaluated(training, condition, record, truth, sheet))
    if not evaluations:
        raise FileNotFoundError(f"no training of run_dir={options.run_dir} has been finished yet")
    report(options, evaluations, inputs.task.best)


def described(found: Tested, condition: Condition | None, ratio: float) -> dict[str, Any]:
    """What the examples are."""
    attributes = found.parts[0][2].attributes
    clouds = None if condition is None else condition.simulate_clouds
    if "missing_share" in attributes:
        ratio = round(attributes["missing_share"], 4)
    elif condition is not None and condition.mask_ratio is not None:
        ratio = condition.mask_ratio
    return {
        "dataset": attributes.get("dataset"),
        "ratio": ratio,
        **({} if clouds is None else {"simulate_clouds": clouds}),
        "examples": len(found.label),
    }


def measured(truth: Truth) -> dict[str, Any]:
    """How true the probabilities are."""
    return {
        **truth.fitted,
        **{f"test_{name}": value for name, value in truth.best.metrics.items()},
        "calibration": {name: of.metrics for name, of in truth.named.items()},
        "reliability": truth.best.bins,
    }


def surest(
    found: Tested, predictions: Predictions, class_names: list[str]
) -> list[tuple[str, Any]]:
    """The surest mistakes, each with what it is, what it is taken for, and its name.

    Raises:
        UsageError: the examples are no images.
    """
    sheet = []
    for row in predictions.mistakes(SHOWN).tolist():
        image = found.image(row)
        if image is None:
            raise UsageError("--mistakes needs examples that are images")
        true, taken = (class_names[of[row]] for of in (predictions.label, predictions.predicted))
        said = f"{true}, taken for {taken} ({predictions.probability[row]:.0%})"
        sheet.append((f"{said}\n{image[0]}", image[1]))
    return sheet


def report(options: EvaluateOptions, evaluations: list[Evaluated], best: str) -> None:
    """Prints, draws and writes."""
    print_evaluations(evaluations, best, options.checkpoint)
    records = {each.name: each.record for each in evaluations}
    written = [options.run_dir / "evaluation.json"]
    write_json(written[0], records)
    if truths := {each.name: each.truth for each in evaluations if each.truth is not None}:
        print_truths(truths)
        written.append(options.run_dir / "reliability.png")
        plot_reliability(truths, written[-1])
    if max(len(options.mask_ratio), len(options.simulate_clouds)) > 1:
        written.append(options.run_dir / "curve.png")
        plot_curve(curves(evaluations), "share of the patches that is missing", written[-1])
    if options.mistakes is not None:
        sheet = [one for each in evaluations for one in each.sheet]
        if sheet:
            draw_sheet(sheet, options.mistakes)
            written.append(options.mistakes)
        else:
            print("no mistakes: nothing to draw")
    if options.out is not None:
        if options.out.suffix.lower() == ".json":
            write_json(options.out, [*records.values()])
        else:
            write_records([flat(record) for record in records.values()], options.out)
        written.append(options.out)
    print(f"written: {', '.join(map(str, written))}")


def curves(evaluations: list[Evaluated]) -> dict[str, dict[float, float]]:
    """Accuracy by what is missing, a line for each training and kind of condition."""
    kinds = {each.condition.kind for each in evaluations if each.condition is not None}
    lines: dict[str, dict[float, float]] = {}
    for each in evaluations:
        kind = f", {each.condition.kind}" if each.condition is not None and len(kinds) > 1 else ""
        line = lines.setdefault(each.training + kind, {})
        line[each.record["ratio"]] = each.record["test_accuracy"]
    return lines


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row of a table: numbers and texts, and three columns for each class."""
    row = {name: of for name, of in record.items() if not isinstance(of, dict | list)}
    for name, of in record.get("classes", {}).items():
        row |= {f"{measure} {name}": of[measure] for measure in ("precision", "recall", "f1")}
    return row


def print_evaluations(evaluations: list[Evaluated], best: str, checkpoint: str) -> None:
    """Prints a row for each training: what chose its epoch, its loss, and the rest."""
    table = Table(title=f"Test examples, {checkpoint} checkpoint")
    for column in ("training", best.replace("_", " "), "loss", "in detail"):
        table.add_column(column)
    for each in evaluations:
        evaluation = each.record
        in_detail = evaluation.get("class_accuracy") or {
            metric.removeprefix("test_").replace("_", " "): value
            for metric, value in evaluation.items()
            if metric.startswith("test_") and metric.removeprefix("test_") not in OF_PROBABILITIES
        }
        lines = (
            f"{c}: {'no test examples' if a is None else f'{a:.1%}'}" for c, a in in_detail.items()
        )
        loss = f"{evaluation['test_loss']:.4f}"
        table.add_row(each.name, f"{evaluation[f'test_{best}']:.2%}", loss, "\n".join(lines))
    Console().print(table)


if __name__ == "__main__":
    run(main, EvaluateOptions, __doc__ or "")
