"""What is said when a run begins: of batches, how images are resized, what of them is missing."""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.command.options import BATCH_SIZE
from jist.data import DataError, Dataset
from jist.data.images.resizing import placement
from jist.models import Encoder

LOOKED_AT = 16  # images


def say_batch(size: int, asked: int | None, workers: int, examples: int) -> None:
    """Says that batches are smaller than usual because there are few training examples."""
    if size < BATCH_SIZE and asked is None and jax.process_index() == 0:
        print(
            f"batches of {size} in place of {BATCH_SIZE}: there are {examples} training examples "
            f"for {workers} worker(s)"
        )


@functools.cache
def say_once(remark: str) -> None:
    """Prints a remark, by the first process, and never again."""
    if jax.process_index() == 0:
        print(f"note: {remark}")


def say_how_resized(dataset: Dataset, encoder: Encoder) -> None:
    """Says what is lost of the images, judged by the first that can be read."""
    side = encoder.config.image_size
    with contextlib.suppress(DataError):
        width, height = dataset.open(0).size
        if (width, height) != (side, side):
            how = encoder.preprocessing.resize
            _, (left, top, right, bottom) = placement(width, height, side, how)
            short = min(width, height)
            to = f"{side} × {side}"
            said = {
                "crop": f"cut to the central {short} × {short} and scaled to {to}",
                "squash": f"squashed to {to}",
                "pad": f"scaled to {right - left} × {bottom - top} and padded to {to}",
            }
            done = f"scaled to {to}" if width == height else said[how]
            say_once(f"images of {width} × {height} (the first) are {done}")


def say_what_is_missing(dataset: Dataset) -> None:
    """Says that images lack pixels that no option leaves out, judged by the first few."""
    shares = []
    for index in range(min(LOOKED_AT, len(dataset))):
        with contextlib.suppress(DataError):
            shares.append(float(dataset.open_with_missing(index)[1].mean()))
    if any(shares):
        shown = "black" if getattr(dataset, "bands", None) else "white"
        say_once(
            f"of the first {len(shares)} images {np.mean(shares):.1%} of the pixels are missing "
            f"(transparent, no data or masked) and shown as {shown}: --natural-masks leaves such "
            "patches out"
        )


def say_missing(split: str, attributes: Mapping[str, Any]) -> None:
    """Says how much of the images is missing, so that nothing removed is not overlooked."""
    pixels = attributes.get("missing_pixels")
    said = "" if pixels is None else f"{pixels:.1%} of the pixels and "
    said += f"{attributes['missing_share']:.1%} of the patches missing"
    left_out = len(attributes["empty"])
    said += f", {left_out} images with nothing visible left out"
    print(f"{split}: masks: {attributes['masks']['name']}, {said}")
