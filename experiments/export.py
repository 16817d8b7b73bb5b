r"""A trained run as a directory that other programs use: preprocessing, encoder, head and classes.

    python -m experiments.export --run-dir runs/photos --out exported/photos

    python exported/photos/predict.py images.npy

`--format stablehlo` writes one program for any number of images and of visible patches;
`predict.py` beside it runs it with NumPy, JAX and flatbuffers alone. `onnx` writes a graph for ONNX
Runtime, of at most as many visible patches as the run saw or `--mask-ratio` leaves. `safetensors`
writes `head.safetensors` and `encoder/`, for programs of one's own; of a network of convolutions it
is not written. In all of them the deployed statistics are folded into the head's linear layers, and
`config.json` says the rest: classes, temperature, size, resizing, filter, mean and deviation of
images, masks, and how far a program's probabilities are from jist's.
`--weights bfloat16` makes it half as large, `int8` a quarter; it computes in float32 all the same.

Takes runs of every script that trains heads, on images, clips or vectors, of
`experiments.finetune` and of `experiments.convnet`. Expected: half a minute.
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.choice import chosen_training
from experiments.runs.directory import features_of
from experiments.runs.example import example_script
from experiments.runs.images import ImageInputs, progress_bar
from experiments.runs.inputs import Inputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.network_images import NetworkInputs
from experiments.runs.trained import open_run
from jist.data import Dataset, batches
from jist.evaluation import predict
from jist.export import WEIGHTS, Deployed, folded_layers, write_onnx, write_stablehlo, write_tensors
from jist.features import cls_vectors
from jist.masking import FixedMask, patches_kept
from jist.models import MLP, Classifier, ImageClassifier, SparseMLP
from jist.probabilities import log_probabilities

# By format, as what weights are stored: 8-bit numbers with their scales are no encoder that scripts
# could read.
TYPES = {"stablehlo": WEIGHTS, "safetensors": WEIGHTS[:2], "onnx": WEIGHTS}
FORMATS = tuple(TYPES)
CHECKED = 100  # examples on which a program is compared with jist
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
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45, aid, ..."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A restored run.

    Attributes:
        deployed: what is exported.
        config: what is said of it.
        ratio: share of the patches that training removed, or the options say.
        arguments: of the program, for some test examples.
        probabilities: what jist finds for them [N, C].
    """

    deployed: Deployed
    config: dict[str, Any]
    ratio: float
    arguments: list[np.ndarray]
    probabilities: np.ndarray


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
    trained = restored(options)
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
            f"on {config['checked_on']} test examples its probabilities are jist's up to "
            f"{config['largest_relative_difference']:.1e} of their size (by "
            f"{config['largest_difference']:.1e} at most), {config['same_class']:.0%} of the "
            "classes the same"
        )


def write(trained: Trained, form: str, directory: pathlib.Path) -> dict[str, Any]:
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
    resized = trained.config.get("preprocessing", {}).get("resize", "crop")
    (directory / "predict.py").write_text(example_script(form, resized))
    return noted | compared(found, trained.probabilities, deployed.weights)


def compared(found: np.ndarray, wanted: np.ndarray, weights: str) -> dict[str, Any]:
    """How far a program's probabilities [N, C] are from jist's, which has float32 weights.

    Raises:
        RuntimeError: farther than rounding explains.
    """
    relative = float(np.max(np.abs(found / wanted - 1)))
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


def restored(options: ExportOptions) -> Trained:
    """A head on frozen features, or a network that was trained end to end.

    Raises:
        UsageError: the run has many labels, and not one class for each example.
    """
    opened = open_run(options.run_dir, options.data_dir)
    training = chosen_training(opened, options.run_dir, options.training, options.checkpoint)
    model, class_names, temperature, _ = opened.restore(training, options.checkpoint)
    inputs, ratio, pool = opened.inputs, opened.ratio(training), opened.images.pool
    ratio = ratio if options.mask_ratio is None else options.mask_ratio
    trained = {"temperature": temperature or 1.0, "weights": options.weights}
    if isinstance(model, ImageClassifier):
        assert isinstance(inputs, NetworkInputs)
        if options.format == "safetensors":
            raise UsageError(
                f"format={options.format}: run_dir={options.run_dir} is a network of convolutions, "
                "of which stablehlo and onnx are written"
            )
        network = ImageClassifier(  # without the views of training
            model.network, preprocessing=model.preprocessing, rngs=nnx.Rngs(0)
        )
        network.eval()
        deployed = Deployed([], **trained, network=network, image_size=inputs.image_size)
    elif isinstance(model, Classifier):
        model.encoder.eval()
        layers = folded_layers(model.head)
        deployed = Deployed(layers, **trained, encoder=model.encoder, pool=model.pooling)
    elif (
        isinstance(model, SparseMLP)
        or isinstance(inputs, ManyLabelInputs)
        or not isinstance(model, MLP)
    ):
        raise UsageError(f"run_dir={options.run_dir} ranks many labels, which is not exported")
    else:
        encoder = inputs.encoder if isinstance(inputs, ImageInputs) else None
        if encoder is not None:
            encoder.eval()
        deployed = Deployed(folded_layers(model), **trained, encoder=encoder, pool=pool)
    arguments, features = some_examples(inputs, deployed, ratio, options)
    logits = np.asarray(predict(model, features))
    probabilities = np.exp(log_probabilities(logits, temperature or 1.0))
    config = described(deployed, class_names, ratio, opened.images.max_missing)
    noted = {"run": training, "checkpoint": options.checkpoint, "dataset": opened.images.dataset}
    return Trained(deployed, config | noted, ratio, arguments, probabilities)


def some_examples(
    inputs: Inputs | NetworkInputs, deployed: Deployed, ratio: float, options: ExportOptions
) -> tuple[list[np.ndarray], Any]:
    """The program's arguments for some test examples, and what jist's network is called with."""
    if not isinstance(inputs, ImageInputs | NetworkInputs):
        with progress_bar() as progress:
            split = inputs.splits(ratio, features_of(options.run_dir), progress)["test"]
        x = np.asarray(split.examples(np.arange(len(split)) < CHECKED)["x"])
        return [x], jnp.asarray(x)
    images, ids = first_images(inputs.examples("test"), deployed)
    encoder = deployed.encoder
    if encoder is None:
        assert isinstance(inputs, NetworkInputs)
        return [images], inputs.given(images, None)
    mask = FixedMask(encoder.config.patches, ratio, inputs.options.seed)
    keep = np.asarray(mask(jnp.asarray(ids)))
    arguments = [images, keep] if deployed.sees_patches else [images]
    if isinstance(inputs, NetworkInputs):
        return arguments, inputs.given(images, keep)
    encode = nnx.jit(cls_vectors, static_argnames="pool")
    given = jnp.asarray(images), jnp.asarray(keep)
    return arguments, encode(encoder, *given, pool=inputs.options.pool)


def first_images(dataset: Dataset, deployed: Deployed) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and ids of the first images of a data set."""
    assert deployed.preprocessing is not None
    found = batches(
        dataset,
        image_size=deployed.side,
        preprocessing=deployed.preprocessing,
        batch_size=CHECKED,
    )
    first = next(iter(found))
    return first.images, first.example_ids


def described(
    deployed: Deployed, classes: list[str], ratio: float, max_missing: float
) -> dict[str, Any]:
    """What a program that uses the export must know."""
    known = {
        "classes": classes,
        "temperature": deployed.temperature,
        "layers": [list(kernel.shape) for kernel, _ in deployed.layers],
        "activation": "relu",
        "patches": 0,
    }
    encoder, preprocessing = deployed.encoder, deployed.preprocessing
    if preprocessing is None:
        return known | {"features": len(deployed.layers[0][0])}
    images = {
        "image_size": deployed.side,
        "preprocessing": {"resize": "crop"} | preprocessing.as_json(),
    }
    if encoder is None:
        return known | images
    patches = encoder.config.patches if deployed.sees_patches else 0
    return known | {
        "patch_size": encoder.config.patch_size,
        "patches": patches,
        "visible": patches_kept(patches, ratio) if patches else 0,
        "max_missing": max_missing,
        "pool": deployed.pool,
        **images,
    }


if __name__ == "__main__":
    run(main, ExportOptions, __doc__ or "")
