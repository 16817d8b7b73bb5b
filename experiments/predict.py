"""Classes of any image files, clips or vectors, by a trained run.

    python -m experiments.predict --run-dir runs/cifar10-ist-4 --images cat.jpg photos/

Masks images as in training: removes the same share of patches or, for a run with natural masks, the
patches that each image lacks; a run on masked images reads the masks from that data set. Encodes
the rest, and prints the most likely class of every image with its probability, as text or, with
`--json-lines`, as one JSON object a line with the probabilities of all classes.

Takes runs of every script that trains classifiers, `finetune` and `convnet` among them; a network
of convolutions sees images whole. Of a run on speech, give audio files; of one on vectors, files of
vectors; of one on xc:PATH, directories with `test.txt`. Where examples may have several labels, the
five likeliest of each row are found.

`--top-k 3` says more classes, `--out FILE` writes a table. Images in folders that are called like
classes are scored, which is said on the error output.

Fixed masks are drawn from an image's pixels, whatever its file is called, so an image of the run
may show other patches here: `--draws 8` averages over several masks, `--mask-ratio 0` uses none.
Probabilities are those of the temperature that was fitted on the validation split, or on held-out
training examples. A run without one (--calibration 0, few examples) is over-confident, the more the
more workers it had. Expected: seconds, and as long as the images take to encode.
"""

import dataclasses
import pathlib
import sys

import numpy as np

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.choice import chosen_training
from experiments.runs.clips import ClipInputs
from experiments.runs.given_files import files_in, image_paths
from experiments.runs.given_images import given_images
from experiments.runs.images import ImageInputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.network_images import NetworkInputs
from experiments.runs.predictions import row_of, show, true_class
from experiments.runs.tables import check_out, write_records
from experiments.runs.trained import open_run
from experiments.runs.vectors import VectorInputs
from jist.data import DataError
from jist.evaluation import predict
from jist.probabilities import log_probabilities
from jist.tasks import predict_labels

LABELS = 5  # of an example that may have many


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """Options of prediction."""

    run_dir: pathlib.Path
    """The run directory."""
    images: tuple[pathlib.Path, ...]
    """Image files, or folders of them (searched recursively); clips or files of vectors of a run on
    those."""
    data_dir: pathlib.Path | None = None
    """Where the data are, as of training; by default where the run found them."""
    training: str | None = None
    """Which training of the run, if it has several; by default the one with the best accuracy: by
    validation, else on the test images at the chosen checkpoint."""
    checkpoint: str = "last"
    """Which checkpoint: last, or best by validation, else by test accuracy."""
    json_lines: bool = False
    """Print JSON lines instead of text."""
    batch_size: int = 64
    """Images encoded at a time."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded, and name them, instead of stopping."""
    mask_ratio: float | None = None
    """Share of the patches that fixed masks remove, in [0, 1); by default the run's."""
    top_k: int | None = None
    """How many classes to say of each image, the likeliest first; by default one as text, and all
    as JSON lines; five labels where examples may have several."""
    out: pathlib.Path | None = None
    """A file for the predictions in place of the terminal: .csv, .jsonl or .parquet, a row each."""
    draws: int = 1
    """Fixed masks drawn for each image; probabilities are averaged, and their spread is shown."""


def main(options: PredictOptions) -> None:
    """Restores, encodes and prints."""
    if options.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {options.batch_size}")
    check_out(options.out, (".csv", ".jsonl", ".parquet"))
    if options.top_k is not None and options.top_k < 1:
        raise UsageError(f"top_k must be at least 1, got {options.top_k}")
    if options.draws < 1:
        raise UsageError(f"draws must be at least 1, got {options.draws}")
    if options.mask_ratio is not None and not 0 <= options.mask_ratio < 1:
        raise UsageError(f"mask_ratio must lie in [0, 1), got {options.mask_ratio}")
    if options.json_lines and options.out is not None:
        raise UsageError("--json-lines has no effect with --out, whose ending decides")
    trained = open_run(options.run_dir, options.data_dir)
    training = chosen_training(trained, options.run_dir, options.training, options.checkpoint)
    inputs = trained.inputs
    restored = trained.restore(training, options.checkpoint)
    head, class_names, temperature, _ = restored
    if isinstance(inputs, ImageInputs | NetworkInputs):
        found = given_images(
            inputs,
            image_paths(options.images),
            trained.ratio(training),
            other_ratio=options.mask_ratio,
            draws=options.draws,
            batch_size=options.batch_size,
            skip_unreadable=options.skip_unreadable,
        )
    elif isinstance(inputs, ManyLabelInputs) and inputs.sparse_rows:
        _check_no_images(options)
        found = map(inputs.read, options.images)
    else:
        _check_no_images(options)
        assert isinstance(inputs, ClipInputs | VectorInputs | ManyLabelInputs)
        found = map(inputs.read, files_in(options.images, inputs.takes, inputs.kind))
    rows, scored, predicted = [], {True: 0, False: 0}, 0
    for names, x in found:
        if not isinstance(inputs, ManyLabelInputs):
            drawn = np.exp(log_probabilities(np.asarray(predict(head, x)), temperature or 1.0))
            drawn = drawn.reshape(-1, len(names), drawn.shape[1])  # by draw of the masks
            probabilities = drawn.mean(axis=0)
            best = np.argsort(-probabilities, axis=1, kind="stable")
            probabilities = np.take_along_axis(probabilities, best, axis=1)
            spreads = np.take_along_axis(drawn.std(axis=0), best, axis=1)[:, 0]
        else:
            most = min(options.top_k or LABELS, inputs.outputs)
            loss = inputs.options.multilabel_loss
            probabilities, best = predict_labels(
                head, x, k=most, loss=loss, scaling=restored.scaling
            )
            spreads = np.zeros(len(names))
        _check_finite(names, probabilities)
        for name, labels, row, spread in zip(names, best, probabilities, spreads, strict=True):
            predicted += 1
            called = [class_names[i] if class_names else str(i) for i in labels[: options.top_k]]
            each = dict(zip(called, row.tolist(), strict=False))
            between = float(spread) if options.draws > 1 else None
            true = true_class(name, class_names)
            if true is not None:
                scored[true == called[0]] += 1
            if options.out is None:
                show(name, each, options.json_lines, options.top_k or 1, between)
            else:
                rows.append(row_of(name, each, true, between))
    if not predicted:
        raise DataError(f"none of the images can be read, given {[*map(str, options.images)]}")
    if total := sum(scored.values()):
        said = f"of {total} in folders of their classes {scored[True] / total:.1%} are right"
        print(said, file=sys.stderr)
    if options.out is not None:
        write_records(rows, options.out)
        print(f"written: {options.out}")


def _check_no_images(options: PredictOptions) -> None:
    """Refuses the options of images; no other input is masked, or skipped.

    Raises:
        UsageError: one is given.
    """
    for name in ("mask_ratio", "draws", "skip_unreadable", "batch_size"):
        if getattr(options, name) != getattr(PredictOptions, name):
            raise UsageError(
                f"--{name.replace('_', '-')} needs a run on images, run_dir={options.run_dir} is on"
                " others"
            )


def _check_finite(names: list[str], probabilities: np.ndarray) -> None:
    """Refuses probabilities [N, K] that are none.

    Raises:
        DataError: one is not finite; the example is named.
    """
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{names[finite.argmin()]}: its probabilities are not finite; the numbers in it, or the"
            " network's, are too large"
        )


if __name__ == "__main__":
    run(main, PredictOptions, __doc__ or "")
