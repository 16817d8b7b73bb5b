"""Classes of any image files, clips or vectors, by a trained run.

    python -m experiments.predict --run-dir runs/cifar10-ist-4 --images cat.jpg photos/

Masks images as in training: removes the same share of patches or, for a run with natural masks, the
patches that each image lacks; a run on masked images reads the masks from that data set. Encodes
the rest, and prints the most likely class of every image with its probability, as text or, with
`--json-lines`, as one JSON object a line with the probabilities of all classes.

Of a run on speech, give audio files; of one on vectors, files of vectors; of one on xc:PATH,
directories with `test.txt`: the five likeliest labels of each row are found.

`--top-k 3` says more classes, `--out FILE` writes a table. Images in folders that are called like
classes are scored, which is said on the error output.

Fixed masks are drawn from an image's pixels, whatever its file is called, so an image of the run
may show other patches here: `--draws 8` averages over several masks, `--mask-ratio 0` uses none.
Probabilities are those of the temperature that was fitted on held-out training examples. A run
without one (--calibration 0, few examples) is over-confident, the more the more workers it had.
Expected: seconds, and as long as the images take to encode.
"""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.figures.choice import chosen_training
from experiments.runs.bands import bands_seen
from experiments.runs.clips import ClipInputs
from experiments.runs.directory import read_part
from experiments.runs.given_files import files_in, image_paths
from experiments.runs.images import ImageInputs, masks_of
from experiments.runs.plan import Plan, Training
from experiments.runs.predictions import row_of, show, true_class
from experiments.runs.restored import restore_head, restore_inputs
from experiments.runs.sparse import SparseInputs
from experiments.runs.tables import check_out, write_records
from experiments.runs.vectors import VectorInputs
from jist.data import (
    MaskedImages,
    NaturalMasks,
    UnreadableImageError,
    load_dataset,
    read_image,
    read_with_missing,
    resize,
)
from jist.evaluation import predict
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep, nothing_visible
from jist.masking import FixedMask
from jist.models import Encoder, MAEEncoder
from jist.probabilities import log_probabilities
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
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded, and name them, instead of stopping."""
    mask_ratio: float | None = None
    """Share of the patches that fixed masks remove, in [0, 1); by default the run's."""
    top_k: int | None = None
    """How many classes to say of each image, the likeliest first; by default one as text, and all
    as JSON lines; five labels of a run on xc:PATH."""
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
    plan = Plan.from_config(read_part(options.run_dir, "config.json"))
    training = choose(plan, options)
    inputs = restore_inputs(options.run_dir, plan.images)
    head, class_names, temperature = restore_head(
        options.run_dir, plan, training, inputs, options.checkpoint
    )
    if isinstance(inputs, ImageInputs):
        ratio = training.mask_ratio if options.mask_ratio is None else options.mask_ratio
        found = encoded(inputs, ratio, image_paths(options.images), options)
    elif isinstance(inputs, SparseInputs):
        found = map(inputs.read, options.images)
    else:
        assert isinstance(inputs, ClipInputs | VectorInputs)
        found = map(inputs.read, files_in(options.images, inputs.takes, inputs.kind))
    rows, scored = [], {True: 0, False: 0}
    for names, x in found:
        if class_names:
            drawn = np.exp(log_probabilities(np.asarray(predict(head, x)), temperature or 1.0))
            drawn = drawn.reshape(-1, len(names), drawn.shape[1])  # by draw of the masks
            probabilities = drawn.mean(axis=0)
            best = np.argsort(-probabilities, axis=1, kind="stable")
            probabilities = np.take_along_axis(probabilities, best, axis=1)
            spreads = np.take_along_axis(drawn.std(axis=0), best, axis=1)[:, 0]
        else:
            most = min(options.top_k or LABELS, inputs.outputs)
            loss = inputs.options.multilabel_loss
            probabilities, best = predict_labels(head, x, k=most, loss=loss)
            spreads = np.zeros(len(names))
        for name, labels, row, spread in zip(names, best, probabilities, spreads, strict=True):
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
    if total := sum(scored.values()):
        said = f"of {total} in folders of their classes {scored[True] / total:.1%} are right"
        print(said, file=sys.stderr)
    if options.out is not None:
        write_records(rows, options.out)
        print(f"written: {options.out}")


def encoded(
    inputs: ImageInputs, mask_ratio: float, paths: list[pathlib.Path], options: PredictOptions
) -> Iterator[tuple[list[str], jax.Array]]:
    """Names of some images at a time, and their CLS vectors, draw by draw of their masks.

    Raises:
        ValueError: masks are to be drawn, but the run has natural ones.
        UnreadableImageError: an image cannot be decoded.
        EmptyImageError: nothing of an image is visible.
    """
    inputs.encoder.eval()
    masks = masks_of_run(inputs.options, mask_ratio, inputs.encoder)
    if isinstance(masks, NaturalMasks) and (options.draws > 1 or options.mask_ratio is not None):
        raise UsageError("--draws and --mask-ratio need a run with drawn masks: its are natural")
    if isinstance(masks, FixedMask) and options.mask_ratio is not None:
        masks = dataclasses.replace(masks, ratio=options.mask_ratio)
    for start in range(0, len(paths), options.batch_size):
        batch = paths[start : start + options.batch_size]
        read = readable(batch, inputs, masks, options.skip_unreadable)
        if not read:
            continue
        names, found = [str(path) for path, _ in read], [image for _, image in read]
        pool = inputs.options.pool
        if isinstance(masks, NaturalMasks):
            cls = encode_visible(inputs.encoder, masks, names, found, pool)
        else:
            cls = encode(inputs.encoder, masks, np.stack(found), pool, options.draws)
        yield names, cls


def readable(
    paths: list[pathlib.Path], inputs: ImageInputs, masks: FixedMask | NaturalMasks, skip: bool
) -> list[tuple[pathlib.Path, Any]]:
    """The images that can be decoded, resized; under natural masks with what is missing of them."""
    side, interpolation = (
        inputs.encoder.config.image_size,
        inputs.encoder.preprocessing.interpolation,
    )
    found, bands = [], bands_seen(inputs.options)
    for path in paths:
        try:
            if isinstance(masks, NaturalMasks):
                no_data = masks.no_data
                given = bands.read(path, no_data) if bands else read_with_missing(path, no_data)
                example = content_id(np.asarray(given[0]))
                image = masks.resize(*given, example, side, interpolation)
            else:
                image = resize(
                    bands.read(path)[0] if bands else read_image(path), side, interpolation
                )
        except UnreadableImageError as error:
            if not skip:
                raise
            print(f"skipped: {error}", file=sys.stderr)
            continue
        found.append((path, image))
    return found


def content_id(pixels: np.ndarray) -> int:
    """An id of an image that depends on its pixels alone, for what is drawn by id."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def masks_of_run(
    images: ImageOptions, mask_ratio: float, encoder: Encoder
) -> FixedMask | NaturalMasks:
    """The masks of the run's images; for a masked data set, those it was made with."""
    if not images.dataset.startswith("masked:"):
        return masks_of(images, mask_ratio, encoder)
    masked = load_dataset(images.dataset, "train", data_dir=images.data_dir)
    assert isinstance(masked, MaskedImages)
    made = dict(masked.attributes["masks"])
    if made.pop("name") == "fixed":
        return FixedMask(**made)
    made["fill"] = tuple(made["fill"])
    return NaturalMasks(**made)


def encode(
    encoder: Encoder, masks: FixedMask, pixels: np.ndarray, pool: str = "cls", draws: int = 1
) -> jax.Array:
    """Feature vectors of images [B, S, S, 3] under fixed masks: [draws · B, D], draw by draw.

    The first draw has the seed of the masks, the others those that follow.
    """
    ids = jnp.asarray([content_id(image) for image in pixels], jnp.uint32)
    seeds = [(masks.seed + draw) % 2**32 for draw in range(draws)]
    keeps = [dataclasses.replace(masks, seed=seed)(ids) for seed in seeds]
    images = jnp.asarray(pixels)
    return jnp.concatenate([_cls_vectors(encoder, images, keep, pool=pool) for keep in keeps])


def encode_visible(
    encoder: Encoder,
    masks: NaturalMasks,
    names: list[str],
    found: list[tuple[np.ndarray, np.ndarray]],
    pool: str = "cls",
) -> jax.Array:
    """Feature vectors of images, each with what is missing of it, under natural masks.

    Raises:
        ValueError: the encoder needs whole images.
        EmptyImageError: nothing of an image is visible.
    """
    if not isinstance(encoder, MAEEncoder):
        raise UsageError("the run's encoder needs whole images, so natural masks cannot be used")
    pixels, missing = (np.stack(parts) for parts in zip(*found, strict=True))
    keep = natural_keep(missing, encoder.config.patch_size, masks.max_missing)
    for name, row in zip(names, keep, strict=True):
        if row[0] == NO_PATCH:
            raise nothing_visible(name, "leave it out of --images")
    return jnp.asarray(ByLength(encoder, len(names), pool=pool)(pixels, keep))


def choose(plan: Plan, options: PredictOptions) -> Training:
    """The training named in the options, or the one with the best result."""
    return chosen_training(plan, options.run_dir, options.training, options.checkpoint)


if __name__ == "__main__":
    run(main, PredictOptions, __doc__ or "")
