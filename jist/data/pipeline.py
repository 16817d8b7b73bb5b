"""Batches of decoded images, in a given order, decoded in parallel through grain."""

import dataclasses
import os
from collections.abc import Generator, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt32

from jist.data.dataset import Dataset
from jist.data.errors import UnreadableImageError
from jist.data.images import resize
from jist.data.natural import NaturalMasks
from jist.models.preprocessing import INTERPOLATIONS

# Images that a thread decodes in one go: enough to outweigh the cost of handing them over, few
# enough for many threads to share a batch.
_PIECE = 32

# Pillow leaves Python's lock while it decodes and resizes; what remains under the lock keeps more
# threads than these from being of use.
_THREADS = min(16, os.cpu_count() or 1)

_UNREADABLE_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some examples of a data set.

    Attributes:
        images: [B, S, S, 3] uint8; zeros where unreadable.
        labels: [B] int32; -1 where unreadable.
        example_ids: [B] uint32.
        readable: [B] bool.
        missing: which pixels are missing [B, S, S]; all where unreadable. None if nobody asked.
    """

    images: UInt8[np.ndarray, "batch side side 3"]
    labels: Int[np.ndarray, " batch"]
    example_ids: UInt32[np.ndarray, " batch"]
    readable: Bool[np.ndarray, " batch"]
    missing: Bool[np.ndarray, "batch side side"] | None = None


def batches(
    dataset: Dataset,
    *,
    image_size: int,
    interpolation: str = "bicubic",
    batch_size: int,
    rows: Sequence[int] | Int[np.ndarray, " rows"] | None = None,
    skip_unreadable: bool = False,
    natural: NaturalMasks | None = None,
) -> Generator[Batch, None, None]:
    """Decodes, resizes and batches examples, a few batches ahead.

    Args:
        dataset: where they come from.
        image_size: pixels S of a side.
        interpolation: filter for resizing, as `jist.data.resize`.
        batch_size: examples B of a batch; the last may have fewer.
        rows: which examples, in this order; by default all, in the order of the data set.
        skip_unreadable: mark images that cannot be decoded instead of stopping at the first.
        natural: how the images' missing regions are found, if they are asked for.

    Returns:
        A generator; the same arguments give the same batches. Closing it stops the decoding.

    Raises:
        ValueError: a size that is not positive, an unknown filter, a row beyond the data set.
        UnreadableImageError: (while iterating) an image cannot be decoded.
    """
    rows = range(len(dataset)) if rows is None else rows
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}")
    if len(rows) and not 0 <= min(rows) <= max(rows) < len(dataset):
        raise ValueError(
            f"rows must lie between 0 and {len(dataset) - 1}, "
            f"got rows from {min(rows)} to {max(rows)}"
        )
    return _iterate(dataset, rows, image_size, interpolation, batch_size, skip_unreadable, natural)


def _iterate(
    dataset: Dataset,
    rows: Sequence[int] | np.ndarray,
    image_size: int,
    interpolation: str,
    batch_size: int,
    skip_unreadable: bool,
    natural: NaturalMasks | None,
) -> Generator[Batch, None, None]:
    failures: dict[int, UnreadableImageError] = {}

    def decode(row: int) -> dict[str, np.ndarray]:
        missing = np.ones((image_size, image_size), bool)
        try:
            if natural is None:
                image = resize(dataset.open(row), image_size, interpolation)
            else:
                image, missing = natural.read(dataset, row, image_size, interpolation)
        except UnreadableImageError as error:
            # Raised in the thread that asks for the batch: grain adds lines to what passes it.
            failures[row] = error
            image = np.zeros((image_size, image_size, 3), np.uint8)
        found = {"row": np.array(row), "image": image, "readable": np.array(row not in failures)}
        return found if natural is None else found | {"missing": missing}

    source: Any = rows.tolist() if isinstance(rows, np.ndarray) else rows
    pieces = grain.MapDataset.source(source).map(decode).batch(_PIECE)
    # Two batches ahead, and work for every thread.
    ahead = max(2 * -(-batch_size // _PIECE), 2 * _THREADS)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=ahead)
    decoded = pieces.to_iter_dataset(options)
    iterator = iter(grain.experimental.RebatchIterDataset(decoded, batch_size))
    try:
        for found in iterator:
            row, readable = found["row"], found["readable"]
            if not (skip_unreadable or readable.all()):
                raise failures[row[~readable][0]]
            labels = np.where(readable, dataset.labels[row], _UNREADABLE_LABEL)
            yield Batch(
                images=found["image"],
                labels=labels.astype(np.int32),
                example_ids=dataset.example_ids[row],
                readable=readable,
                missing=found.get("missing"),
            )
    finally:
        # Threads must not go on decoding for somebody who has stopped listening.
        iterator.close()
