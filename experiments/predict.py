"""Classes of any image files, by a trained run.

    python -m experiments.predict --run-dir runs/cifar10-ist-4 --images cat.jpg photos/

Removes the share of patches that the run was trained with, encodes the rest, and prints the most
likely class of every image with its probability, as text or, with `--json-lines`, as one JSON
object a line with the probabilities of all classes.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classification import restore_head
from experiments.cli import Options, run
from experiments.images import build_encoder
from experiments.options import Plan, Training
from experiments.run_directory import read_json
from jist.data import IMAGE_SUFFIXES, example_id, read_image, resize
from jist.features import cls_vectors
from jist.masking import FixedMask
from jist.trainer import predict


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """Options of prediction."""

    run_dir: pathlib.Path
    """The run directory."""
    images: tuple[pathlib.Path, ...]
    """Image files, or folders of images (searched through and through)."""
    training: str | None = None
    """Which training of the run, if it has several; by default the one with the best accuracy."""
    checkpoint: str = "last"
    """Which checkpoint: last, or best by test accuracy."""
    json_lines: bool = False
    """Print JSON lines instead of text."""
    batch_size: int = 64
    """Images encoded at a time."""


def main(options: PredictOptions) -> None:
    """Restores, encodes and prints."""
    paths = image_paths(options.images)
    plan = Plan.from_config(read_json(options.run_dir / "config.json"))
    training = choose(plan, options)
    encoder = build_encoder(plan.images)
    encoder.eval()
    head, class_names = restore_head(options.run_dir, plan, training, encoder, options.checkpoint)
    masks = FixedMask(encoder.config.patches, training.mask_ratio, plan.images.seed)
    side, wanted = encoder.config.image_size, encoder.preprocessing
    for start in range(0, len(paths), options.batch_size):
        batch = paths[start : start + options.batch_size]
        pixels = np.stack([resize(read_image(path), side, wanted.interpolation) for path in batch])
        keep = masks(jnp.asarray([example_id(path.name) for path in batch], jnp.uint32))
        cls = cls_vectors(encoder, jnp.asarray(pixels), keep)
        for path, row in zip(batch, np.asarray(jax.nn.softmax(predict(head, cls))), strict=True):
            show(path, row, class_names, options.json_lines)


def image_paths(given: tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
    """The image files that are named, or lie in the folders that are.

    Raises:
        ValueError: a path does not exist, or there is no image.
    """
    paths = []
    for path in given:
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            paths += [p for p in inside if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
        elif path.is_file():
            paths.append(path)
        else:
            raise ValueError(f"images must be files or folders, {path} does not exist")
    if not paths:
        raise ValueError(
            f"images holds no image, given {[str(p) for p in given]}; a folder may hold "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return paths


def choose(plan: Plan, options: PredictOptions) -> Training:
    """The training that is asked for, or the best of the run's results."""
    trainings = {training.name: training for training in plan.trainings}
    if options.training is None:
        results = read_json(options.run_dir / "summary.json")["results"]
        return trainings[max(results, key=lambda result: result["best_test_accuracy"])["run"]]
    if options.training not in trainings:
        raise ValueError(f"training must be one of {sorted(trainings)}, got {options.training!r}")
    return trainings[options.training]


def show(
    path: pathlib.Path, probabilities: np.ndarray, class_names: list[str], json_lines: bool
) -> None:
    """Prints the prediction for one image."""
    best = int(np.argmax(probabilities))
    if json_lines:
        every = {
            name: round(float(p), 6) for name, p in zip(class_names, probabilities, strict=True)
        }
        record = {"image": str(path), "class": class_names[best], "probabilities": every}
        print(json.dumps(record | {"probability": every[class_names[best]]}))
    else:
        print(f"{path}\t{class_names[best]}\t{probabilities[best]:.4f}")


if __name__ == "__main__":
    run(main, PredictOptions, __doc__ or "")
