"""Classes of any image files, clips or vectors, by a trained run.

    python -m experiments.predict --run-dir runs/cifar10-ist-4 --images cat.jpg photos/

Masks images as in training: removes the same share of patches or, for a run with natural masks, the
patches that each image lacks; a run on masked images reads the masks from that data set. Encodes
the rest, and prints the most likely class of every image with its probability, as text or, with
`--json-lines`, as one JSON object a line with the probabilities of all classes.

Of a run on speech, give audio files; of one on vectors, files of vectors; of one on xc:PATH,
directories with `test.txt`: the five likeliest labels of each row are found.

Fixed masks are drawn from the file's name, not from the key in the run's data set, so an image of
the run may show other patches here. Probabilities are those of the deployed head. A head trained by
n workers is over-confident: its logits are about n times too large. The class is not affected.
Expected: seconds, and as long as the images take to encode.
"""

import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.command.cli import Options, run
from experiments.command.options import ImageOptions
from experiments.figures.summaries import metric_of
from experiments.runs.classification import restore_head, restore_inputs
from experiments.runs.clips import ClipInputs
from experiments.runs.directory import read_part
from experiments.runs.images import ImageInputs, masks_of, say_once
from experiments.runs.plan import Plan, Training
from experiments.runs.sparse import SparseInputs
from experiments.runs.vectors import VectorInputs
from jist.data import (
    IMAGE_SUFFIXES,
    MaskedImages,
    NaturalMasks,
    example_id,
    image_keys,
    is_image,
    load_dataset,
    read_image,
    read_with_missing,
    resize,
    say_passed_over,
)
from jist.evaluation import predict
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep, nothing_visible
from jist.masking import FixedMask
from jist.models import Encoder, MAEEncoder
from jist.tasks import predict_labels

LABELS = 5  # of an example that may have many
_cls_vectors = nnx.jit(cls_vectors, static_argnames="pool")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """Options of prediction."""

    run_dir: pathlib.Path
    """The run directory."""
    images: tuple[pathlib.Path, ...]
    """Image files, or folders of them (searched recursively); clips or files of vectors of a run on
    those."""
    training: str | None = None
    """Which training of the run, if it has several; by default the one with the best accuracy: by
    validation, else on the test images at the chosen checkpoint."""
    checkpoint: str = "last"
    """Which checkpoint: last, or best by validation, else by test accuracy."""
    json_lines: bool = False
    """Print JSON lines instead of text."""
    batch_size: int = 64
    """Images encoded at a time."""


def main(options: PredictOptions) -> None:
    """Restores, encodes and prints."""
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}")
    plan = Plan.from_config(read_part(options.run_dir, "config.json"))
    training = choose(plan, options)
    inputs = restore_inputs(options.run_dir, plan.images)
    head, class_names = restore_head(options.run_dir, plan, training, inputs, options.checkpoint)
    if isinstance(inputs, ImageInputs):
        paths = image_paths(options.images)
        found = encoded(inputs, training.mask_ratio, paths, options.batch_size)
    elif isinstance(inputs, SparseInputs):
        found = map(inputs.read, options.images)
    else:
        assert isinstance(inputs, ClipInputs | VectorInputs)
        found = map(inputs.read, files_in(options.images, inputs.takes, inputs.kind))
    for names, x in found:
        if class_names:
            probabilities = np.asarray(jax.nn.softmax(predict(head, x)))
            best = np.argsort(-probabilities, axis=1, kind="stable")
            probabilities = np.take_along_axis(probabilities, best, axis=1)
        else:
            probabilities, best = predict_labels(head, x, k=min(LABELS, inputs.outputs))
        for name, labels, row in zip(names, best, probabilities, strict=True):
            called = [class_names[i] if class_names else str(i) for i in labels]
            show(name, dict(zip(called, row.tolist(), strict=True)), options.json_lines)


def encoded(
    inputs: ImageInputs, mask_ratio: float, paths: list[pathlib.Path], batch_size: int
) -> Iterator[tuple[list[str], jax.Array]]:
    """Names and CLS vectors of some images at a time, masked as the run's images are."""
    inputs.encoder.eval()
    masks = masks_of_run(inputs.options, mask_ratio, inputs.encoder)
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        if isinstance(masks, NaturalMasks):
            cls = encode_visible(inputs.encoder, masks, batch, inputs.options.pool)
        else:
            cls = encode(inputs.encoder, masks, batch, inputs.options.pool)
        yield [str(path) for path in batch], cls


def masks_of_run(
    images: ImageOptions, mask_ratio: float, encoder: Encoder
) -> FixedMask | NaturalMasks:
    """The masks of the run's images; for a masked data set, those it was made with."""
    if not images.dataset.startswith("masked:"):
        return masks_of(images, mask_ratio, encoder)
    masked = load_dataset(images.dataset, "train")
    assert isinstance(masked, MaskedImages)
    made = dict(masked.attributes["masks"])
    if made.pop("name") == "fixed":
        return FixedMask(**made)
    made["fill"] = tuple(made["fill"])
    return NaturalMasks(**made)


def encode(
    encoder: Encoder, masks: FixedMask, paths: list[pathlib.Path], pool: str = "cls"
) -> jax.Array:
    """Feature vectors of images under fixed masks, at the run's masking ratio."""
    side, wanted = encoder.config.image_size, encoder.preprocessing
    pixels = np.stack([resize(read_image(path), side, wanted.interpolation) for path in paths])
    keep = masks(jnp.asarray([example_id(path.name) for path in paths], jnp.uint32))
    return _cls_vectors(encoder, jnp.asarray(pixels), keep, pool=pool)


def encode_visible(
    encoder: Encoder, masks: NaturalMasks, paths: list[pathlib.Path], pool: str = "cls"
) -> jax.Array:
    """Feature vectors of images under natural masks.

    Raises:
        ValueError: the encoder needs whole images.
        EmptyImageError: nothing of an image is visible.
    """
    if not isinstance(encoder, MAEEncoder):
        raise ValueError("the run's encoder needs whole images, so natural masks cannot be used")
    side, wanted = encoder.config.image_size, encoder.preprocessing
    read = [
        masks.resize(
            *read_with_missing(path, masks.no_data),
            example_id(path.name),
            side,
            wanted.interpolation,
        )
        for path in paths
    ]
    pixels, missing = (np.stack(parts) for parts in zip(*read, strict=True))
    keep = natural_keep(missing, encoder.config.patch_size, masks.max_missing)
    for path, row in zip(paths, keep, strict=True):
        if row[0] == NO_PATCH:
            raise nothing_visible(str(path), "leave it out of --images")
    return jnp.asarray(ByLength(encoder, len(paths), pool=pool)(pixels, keep))


def image_paths(given: tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
    """The given image files, and those in the given folders, as data sets find them.

    Raises:
        ValueError: a path does not exist, or there is no image.
    """
    paths = []
    for path in given:
        if path.is_dir():
            counts: Counter[str] = Counter()
            paths += [path / key for key in image_keys(path, passed_over=counts)]
            for remark in say_passed_over(path, counts):
                say_once(remark)
        else:
            paths += files_in((path,), is_image, "image")
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"images holds no image ({kinds}), given {[str(p) for p in given]}")
    return paths


def files_in(
    given: tuple[pathlib.Path, ...], wanted: Callable[[str], bool], kind: str
) -> list[pathlib.Path]:
    """The given files, and those in the given folders that are of a kind by their names.

    Raises:
        ValueError: a path does not exist, or there is no such file.
    """
    paths = []
    for path in given:
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            paths += [path for path in inside if path.is_file() and wanted(path.name)]
        elif path.is_file():
            paths.append(path)
        else:
            raise ValueError(f"images must be files or folders, {path} does not exist")
    if not paths:
        raise ValueError(f"images holds no {kind}, given {[str(p) for p in given]}")
    return paths


def choose(plan: Plan, options: PredictOptions) -> Training:
    """The training named in the options, or the one with the best result."""
    trainings = {training.name: training for training in plan.trainings}
    if options.training is None:
        results = read_part(options.run_dir, "summary.json")["results"]
        metric = metric_of(results[0])
        by_test = f"{'best' if options.checkpoint == 'best' else 'last'}_test_{metric}"
        by = f"best_validation_{metric}" if plan.head.validation else by_test
        return trainings[max(results, key=lambda result: result[by])["run"]]
    if options.training not in trainings:
        raise ValueError(f"training must be one of {sorted(trainings)}, got {options.training!r}")
    return trainings[options.training]


def show(name: str, probabilities: dict[str, float], json_lines: bool) -> None:
    """Prints the prediction for one example, whose likeliest class stands first."""
    best, probability = next(iter(probabilities.items()))
    if json_lines:
        every = {of: round(p, 6) for of, p in probabilities.items()}
        record = {"image": name, "class": best, "probabilities": every}
        print(json.dumps(record | {"probability": every[best]}))
    else:
        print(f"{name}\t{best}\t{probability:.4f}")


if __name__ == "__main__":
    run(main, PredictOptions, __doc__ or "")
