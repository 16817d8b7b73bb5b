r"""A trained run as a directory that other programs use: preprocessing, encoder, head and classes.

    python -m experiments.export --run-dir runs/photos --out exported/photos

    python exported/photos/predict.py images.npy

`--format stablehlo` writes one program for any number of images and of visible patches;
`predict.py` beside it runs it with NumPy, JAX and flatbuffers alone. `onnx` writes a graph for ONNX
Runtime, of at most as many visible patches as the run saw or `--mask-ratio` leaves. `safetensors`
writes `head.safetensors` and `encoder/`, for programs of one's own, or, of a network of
convolutions, `network.safetensors` with the names and layouts of torchvision. In all of them the
deployed statistics are folded into the head's linear layers, and `config.json` says the rest:
classes, temperature, size, resizing, filter, mean and deviation of images, masks, and how far a
program's probabilities are from jist's.
`--weights bfloat16` makes it half as large, `int8` a quarter; it computes in float32 all the same.

Takes runs of every script that trains heads, on images, clips, vectors or sparse rows, of
`experiments.finetune` and of `experiments.convnet`. Of sparse rows a program takes features and
values of the entries, padded; of a run that ranks many labels it gives every label's probability.
Of neither is `onnx` written. Expected: half a minute.
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import numpy as np

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.choice import chosen_training
from experiments.runs.deployable import Deployable, deployable, has_rows_or_labels
from experiments.runs.example import example_script, rows_script
from experiments.runs.trained import open_run
from jist.export import WEIGHTS, check_converter, write_onnx, write_stablehlo, write_tensors
from jist.masking import patches_kept

# By format, as what weights are stored: 8-bit numbers with their scales are no encoder that scripts
# could read.
TYPES = {"stablehlo": WEIGHTS, "safetensors": WEIGHTS[:2], "onnx": WEIGHTS}
FORMATS = tuple(TYPES)
LEAST = 1e-3  # of labels, nearly all of which are as good as impossible
MOST = 1e-4  # relative difference of a probability, of a program that computes as jist does
# Difference of a probability where weights were rounded: 16 times what a weight may move by, as a
# share of itself (bfloat16, 8 bits with the first) or of the largest of its output (int8).
ROUNDED = {"bfloat16": 16 * 2**-9, "int8": 16 / 254}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Options of export."""

    run_dir: pathlib.Path
    """The run directory."""
    out: pathlib.Path = pathlib.Path("exported")
    """The directory to write; must not exist."""
    format: str = "stablehlo"
    """stablehlo, safetensors, or onnx."""
    weights: str = "float32"
    """Stored as float32, bfloat16, or int8 with a scale for every output; of safetensors not as
    int8."""
    mask_ratio: float | None = None
    """Of onnx: the graph is for images of which this share of the patches is removed, or more; by
    default as in training."""
    training: str | None = None
    """Which training of the run, if it has several; by default the one with the best accuracy."""
    checkpoint: str = "last"
    """Which checkpoint: last, or best by validation, else by test accuracy."""
    data_dir: pathlib.Path | None = None
    """Where the data are, as of training; by default where the run found them."""


def main(options: ExportOptions) -> None:
    """Restores, writes and compares."""
    if options.format not in FORMATS:
        raise UsageError(f"format must be one of {FORMATS}, got {options.format!r}")
    if options.weights not in TYPES[options.format]:
        raise UsageError(
            f"weights of format={options.format} must be one of {TYPES[options.format]}, got "
            f"{options.weights!r}"
        )
    if options.mask_ratio is not None and options.format != "onnx":
        raise UsageError(
            f"--mask-ratio {options.mask_ratio:g} has no effect: format={options.format} takes any"
        )
    if options.out.exists():
        raise UsageError(f"out={options.out} exists; exports are written to a new directory")
    opened = open_run(options.run_dir, options.data_dir)
    if options.format == "onnx":  # before images are encoded
        if has_rows_or_labels(opened.inputs):
            raise UsageError(
                f"format={options.format}: run_dir={options.run_dir} takes sparse rows or ranks "
                "many labels, of which stablehlo and safetensors are written"
            )
        check_converter()
    training = chosen_training(opened, options.run_dir, options.training, options.checkpoint)
    asked = options.mask_ratio
    trained = deployable(
        options.run_dir,
        opened,
        training,
        checkpoint=options.checkpoint,
        ratio=opened.ratio(training) if asked is None else asked,
        weights=options.weights,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=".export.", dir=options.out.parent))
    try:
        config = trained.config | write(trained, options.format, staging)
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        staging.chmod(0o755)
        staging.rename(options.out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    files = [path for path in options.out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"written: {options.out}, {size / 1e6:.1f} MB in {len(files)} files")
    if "checked_on" in config:
        print(
            f"on {config['checked_on']} {trained.examples} its probabilities are jist's up to "
            f"{config['largest_relative_difference']:.1e} of their size (by "
            f"{config['largest_difference']:.1e} at most), {config['same_class']:.0%} of the "
            "classes the same"
        )


def write(trained: Deployable, form: str, directory: pathlib.Path) -> dict[str, Any]:
    """Writes the files of a format, and says what is to be said of them.

    Raises:
        RuntimeError: the program finds other probabilities than jist.
    """
    deployed, patches = trained.deployed, trained.config["patches"]
    noted: dict[str, Any] = {"format": form, "weights": deployed.weights, "most_visible": None}
    if form == "safetensors":
        write_tensors(deployed, directory)
        return noted
    if form == "stablehlo":
        write_stablehlo(deployed, directory)
        found = _by_jax(directory, trained.arguments)
    else:
        if patches:
            noted["most_visible"] = patches_kept(patches, trained.ratio)
        write_onnx(deployed, directory, noted["most_visible"] or 1)
        found = _by_onnx(directory, trained.arguments)
    how = trained.config.get("preprocessing", {})
    resized, border = how.get("resize", "crop"), how.get("border", 0)
    of_classes = deployed.output == "softmax"
    of_rows = deployed.sparse or not of_classes
    script = rows_script() if of_rows else example_script(form, resized, border)
    (directory / "predict.py").write_text(script)
    least = 0.0 if of_classes else LEAST
    return noted | compared(found, trained.probabilities, deployed.weights, least)


def compared(
    found: np.ndarray, wanted: np.ndarray, weights: str, least: float = 0.0
) -> dict[str, Any]:
    """How far a program's probabilities [N, C] are from jist's, which has float32 weights.

    Args:
        found: those of the program.
        wanted: those of jist.
        weights: as what the program's are stored.
        least: smaller probabilities count like this one.

    Raises:
        RuntimeError: farther than rounding explains.
    """
    relative = float(np.max(np.abs(found - wanted) / np.maximum(wanted, least)))
    absolute = float(np.max(np.abs(found - wanted)))
    said = {
        "checked_on": len(found),
        "largest_relative_difference": relative,
        "largest_difference": absolute,
        "same_class": float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1))),
    }
    if weights in ROUNDED and not absolute <= ROUNDED[weights]:
        raise RuntimeError(
            f"with weights={weights} a probability differs from jist's by {absolute:.1e}, "
            f"{ROUNDED[weights]:.1e} is allowed: this network does not stand the rounding"
        )
    if weights not in ROUNDED and not relative <= MOST:
        raise RuntimeError(
            f"the exported program is wrong: its probabilities differ from jist's by "
            f"{relative:.1e} of their size, {MOST:g} is allowed"
        )
    return said


def _by_jax(directory: pathlib.Path, arguments: list[np.ndarray]) -> np.ndarray:
    read = jax.export.deserialize(bytearray((directory / "model.stablehlo").read_bytes()))
    return np.asarray(read.call(*arguments))


def _by_onnx(directory: pathlib.Path, arguments: list[np.ndarray]) -> np.ndarray:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    names = [given.name for given in session.get_inputs()]
    return np.asarray(session.run(None, dict(zip(names, arguments, strict=True)))[0])


if __name__ == "__main__":
    run(main, ExportOptions, __doc__ or "")
