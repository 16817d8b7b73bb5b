r"""A trained run as a directory that other programs use: preprocessing, encoder, head and classes.

    python -m experiments.export --run-dir runs/photos --out exported/photos

    python exported/photos/predict.py images.npy

`--format stablehlo` writes one program for any number of images and of visible patches;
`predict.py` beside it runs it with NumPy, JAX and flatbuffers alone. `onnx` writes a graph for ONNX
Runtime, of at most as many visible patches as the run saw. `safetensors` writes `head.safetensors`
and `encoder/`, for programs of one's own. In all of them the deployed statistics are folded into
the head's linear layers, and `config.json` says the rest: classes, temperature, size, mean,
deviation and filter of images, masks, and how far a program's probabilities are from jist's.

Takes runs of every script that trains heads, on images, clips or vectors, and of
`experiments.finetune`. Expected: half a minute.
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
from experiments.runs.directory import features_of, read_part
from experiments.runs.example import example_script
from experiments.runs.finetuning import restore_finetuned
from experiments.runs.images import ImageInputs, progress_bar
from experiments.runs.inputs import Inputs
from experiments.runs.plan import Plan
from experiments.runs.restored import located, restore_head, restore_inputs
from jist.data import Dataset, batches
from jist.evaluation import predict
from jist.export import Deployed, folded_layers, write_onnx, write_stablehlo, write_tensors
from jist.features import cls_vectors
from jist.masking import FixedMask, patches_kept
from jist.models import MLP, SparseMLP
from jist.probabilities import log_probabilities

FORMATS = ("stablehlo", "safetensors", "onnx")
CHECKED = 100  # examples on which a program is compared with jist
MOST = 1e-4  # relative difference of a probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Options of export."""

    run_dir: pathlib.Path
    """The run directory."""
    out: pathlib.Path = pathlib.Path("exported")
    """The directory to write; must not exist."""
    format: str = "stablehlo"
    """stablehlo, safetensors, or onnx."""
    training: str | None = None
    """Which training of the run, if it has several; by default the one with the best accuracy."""
    checkpoint: str = "last"
    """Which checkpoint: last, or best by validation, else by test accuracy."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45 or aid."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A restored run.

    Attributes:
        deployed: what is exported.
        config: what is said of it.
        ratio: share of the patches that training removed.
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
    if options.out.exists():
        raise UsageError(f"out={options.out} exists; exports are written to a new directory")
    experiment = read_part(options.run_dir, "config.json").get("experiment")
    trained = (finetuned if experiment == "finetune" else of_head)(options)
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
            f"its probabilities are jist's up to {config['largest_relative_difference']:.1e} of "
            f"their size, on {config['checked_on']} test examples"
        )


def write(trained: Trained, form: str, directory: pathlib.Path) -> dict[str, Any]:
    """Writes the files of a format, and says what is to be said of them.

    Raises:
        RuntimeError: the program finds other probabilities than jist.
    """
    deployed, patches = trained.deployed, trained.config["patches"]
    noted: dict[str, Any] = {"format": form, "most_visible": None}
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
    (directory / "predict.py").write_text(example_script(form))
    difference = float(np.max(np.abs(found / trained.probabilities - 1)))
    if not difference <= MOST:
        raise RuntimeError(
            f"the exported program is wrong: its probabilities differ from jist's by "
            f"{difference:.1e} of their size, {MOST:g} is allowed"
        )
    return noted | {"checked_on": len(found), "largest_relative_difference": difference}


def _by_jax(directory: pathlib.Path, arguments: list[np.ndarray]) -> np.ndarray:
    read = jax.export.deserialize(bytearray((directory / "model.stablehlo").read_bytes()))
    return np.asarray(read.call(*arguments))


def _by_onnx(directory: pathlib.Path, arguments: list[np.ndarray]) -> np.ndarray:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(directory / "model.onnx")
    names = [given.name for given in session.get_inputs()]
    return np.asarray(session.run(None, dict(zip(names, arguments, strict=True)))[0])


def of_head(options: ExportOptions) -> Trained:
    """A head on frozen features.

    Raises:
        UsageError: the run has many labels, and not one class for each example.
    """
    plan = Plan.from_config(read_part(options.run_dir, "config.json"))
    training = chosen_training(plan, options.run_dir, options.training, options.checkpoint)
    images = dataclasses.replace(plan.images, data_dir=options.data_dir)
    inputs = restore_inputs(options.run_dir, located(options.run_dir, images))
    head, class_names, temperature = restore_head(
        options.run_dir, plan, training, inputs, options.checkpoint
    )
    if isinstance(head, SparseMLP) or not isinstance(head, MLP):
        raise UsageError(f"run_dir={options.run_dir} ranks many labels, which is not exported")
    ratio, encoder, pool = training.mask_ratio, None, images.pool
    if isinstance(inputs, ImageInputs):
        encoder = inputs.encoder
        encoder.eval()
    deployed = Deployed(folded_layers(head), temperature or 1.0, encoder, pool)
    arguments, features = some_examples(inputs, deployed, ratio, options)
    logits = np.asarray(predict(head, jnp.asarray(features)))
    probabilities = np.exp(log_probabilities(logits, temperature or 1.0))
    config = described(deployed, class_names, ratio, plan.images.max_missing)
    noted = {"run": training.name, "checkpoint": options.checkpoint, "dataset": images.dataset}
    return Trained(deployed, config | noted, ratio, arguments, probabilities)


def finetuned(options: ExportOptions) -> Trained:
    """A network that was trained end to end."""
    if options.training is not None or options.checkpoint != "last":
        raise UsageError("a run of experiments.finetune has one training: its last epoch is taken")
    finetune, model, tests = restore_finetuned(options.run_dir, options.data_dir)
    encoder = model.encoder
    deployed = Deployed(folded_layers(model.head), 1.0, encoder, finetune.pooling)
    images, ids = first_images(tests, deployed)
    mask = FixedMask(encoder.config.patches, finetune.mask_ratio, finetune.seed)
    keep = np.asarray(mask(jnp.asarray(ids)))
    given = {"image": jnp.asarray(images), "keep": jnp.asarray(keep)}
    probabilities = np.exp(log_probabilities(np.asarray(predict(model, given))))
    config = described(deployed, list(tests.class_names), finetune.mask_ratio, 0.0)
    config |= {"run": "finetune", "checkpoint": "last", "dataset": finetune.dataset}
    return Trained(deployed, config, finetune.mask_ratio, [images, keep], probabilities)


def some_examples(
    inputs: Inputs, deployed: Deployed, ratio: float, options: ExportOptions
) -> tuple[list[np.ndarray], np.ndarray]:
    """The program's arguments for some test examples, and their features by jist."""
    if not isinstance(inputs, ImageInputs):
        with progress_bar() as progress:
            split = inputs.splits(ratio, features_of(options.run_dir), progress)["test"]
        x = np.asarray(split.examples(np.arange(len(split)) < CHECKED)["x"])
        return [x], x
    images, ids = first_images(inputs.examples("test"), deployed)
    mask = FixedMask(inputs.encoder.config.patches, ratio, inputs.options.seed)
    keep = np.asarray(mask(jnp.asarray(ids)))
    encode = nnx.jit(cls_vectors, static_argnames="pool")
    features = encode(
        inputs.encoder, jnp.asarray(images), jnp.asarray(keep), pool=inputs.options.pool
    )
    arguments = [images, keep] if deployed.sees_patches else [images]
    return arguments, np.asarray(features)


def first_images(dataset: Dataset, deployed: Deployed) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and ids of the first images of a data set."""
    encoder = deployed.encoder
    assert encoder is not None
    first = next(
        iter(
            batches(
                dataset,
                image_size=encoder.config.image_size,
                interpolation=encoder.preprocessing.interpolation,
                batch_size=CHECKED,
            )
        )
    )
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
    encoder = deployed.encoder
    if encoder is None:
        return known | {"features": len(deployed.layers[0][0])}
    patches = encoder.config.patches if deployed.sees_patches else 0
    return known | {
        "image_size": encoder.config.image_size,
        "patch_size": encoder.config.patch_size,
        "patches": patches,
        "visible": patches_kept(patches, ratio) if patches else 0,
        "max_missing": max_missing,
        "pool": deployed.pool,
        "preprocessing": encoder.preprocessing.as_json(),
    }


if __name__ == "__main__":
    run(main, ExportOptions, __doc__ or "")
