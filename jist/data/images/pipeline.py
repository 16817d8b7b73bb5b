"""Batches of decoded images, in a given order, decoded in parallel through grain."""

import dataclasses
from collections.abc import Generator, Sequence

import grain
import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt32

from jist.data.dataset import Dataset
from jist.data.errors import UnreadableImageError
from jist.data.images.natural import NaturalMasks
from jist.data.images.resizing import resize
from jist.models.preprocessing import Preprocessing
from jist.placement import available_cores

# Images that a thread decodes in one go: enough to outweigh the cost of passing them between
# threads, few enough for many threads to share a batch.
_PIECE = 32

# Pillow releases Python's global lock while it decodes and resizes; the work that remains under
# the lock makes more threads than these useless.
_THREADS = min(16, available_cores())

_UNREADABLE_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some examples of a data set.

    Attributes:
        images: [B, S, S, C] uint8; zeros where unreadable.
        labels: [B] int32; -1 where unreadable.
        example_ids: [B] uint32.
        readable: [B] bool.
        missing: which pixels are missing [B, S, S]; all where unreadable. None without natural
            masks.
    """

    images: UInt8[np.ndarray, "batch side side channels"]
    labels: Int[np.ndarray, " batch"]
    example_ids: UInt32[np.ndarray, " batch"]
    readable: Bool[np.ndarray, " batch"]
    missing: Bool[np.ndarray, "batch side side"] | None = None


def batches(
    dataset: Dataset,
    *,
    image_size: int,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
    batch_size: int,
    rows: Sequence[int] | Int[np.ndarray, " rows"] | None = None,
    chunk: int | None = None,
    skip_unreadable: bool = False,
    natural: NaturalMasks | None = None,
) -> Generator[Batch, None, None]:
    """Decodes, resizes and batches examples, a few batches ahead.

    Args:
        dataset: where they come from.
        image_size: pixels S of a side.
        preprocessing: how they are resized, as `jist.data.resize`.
        batch_size: examples B of a batch; the last may have fewer.
        rows: which examples, in this order; by default all, in the order of the data set.
        chunk: batches begin anew after so many rows, so the last of a chunk may have fewer, too.
        skip_unreadable: mark images that cannot be decoded instead of stopping at the first.
        natural: how the images' missing regions are found; None to ignore them.

    Returns:
        A generator; the same arguments give the same batches. Closing it stops the decoding.

    Raises:
        ValueError: a size that is not positive, a row beyond the data set.
        UnreadableImageError: (while iterating) an image cannot be decoded.
    """
    rows = range(len(dataset)) if rows is None else rows
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 row, got {chunk}")
    if len(rows) and not 0 <= min(rows) <= max(rows) < len(dataset):
        raise ValueError(
            f"rows must lie between 0 and {len(dataset) - 1}, "
            f"got rows from {min(rows)} to {max(rows)}"
        )
    chunks = _cut(range(len(rows)), chunk or len(rows))
    places = [batch for whole in chunks for batch in _cut(whole, batch_size)]
    return _iterate(dataset, rows, places, image_size, preprocessing, skip_unreadable, natural)


def _cut(places: range, length: int) -> list[range]:
    return [places[start : start + length] for start in range(0, len(places), max(1, length))]


def _iterate(
    dataset: Dataset,
    rows: Sequence[int] | np.ndarray,
    places: list[range],
    image_size: int,
    preprocessing: Preprocessing,
    skip_unreadable: bool,
    natural: NaturalMasks | None,
) -> Generator[Batch, None, None]:
    """Batches, each given by the positions of its examples in `rows`."""
    failures: dict[int, UnreadableImageError] = {}

    def decode(piece: range) -> Batch:
        some = [int(row) for row in rows[piece.start : piece.stop]]
        images = np.zeros((len(piece), image_size, image_size, dataset.channels), np.uint8)
        missing = None if natural is None else np.ones(images.shape[:3], bool)
        readable = np.ones(len(piece), bool)
        for i, row in enumerate(some):
            try:
                if natural is None or missing is None:
                    images[i] = resize(dataset.decode(row), image_size, preprocessing)
                else:
                    images[i], missing[i] = natural.read(dataset, row, image_size, preprocessing)
            except UnreadableImageError as error:
                # Raised later, in the consumer's thread: grain adds lines to errors that pass it.
                failures[piece[i]] = error
                readable[i] = False
        labels = np.where(readable, dataset.labels[some], _UNREADABLE_LABEL).astype(np.int32)
        return Batch(images, labels, dataset.example_ids[some], readable, missing)

    cut = [_cut(batch, _PIECE) for batch in places]
    pieces = grain.MapDataset.source([piece for pieces in cut for piece in pieces]).map(decode)
    # Two batches ahead, and work for every thread.
    ahead = max(2 * max(map(len, cut), default=0), 2 * _THREADS)
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=ahead)
    decoded = iter(pieces.to_iter_dataset(options))
    try:
        for batch, pieces in zip(places, cut, strict=True):
            found = _join([next(decoded) for _ in pieces])
            if not (skip_unreadable or found.readable.all()):
                raise failures[batch[int(np.argmin(found.readable))]]
            yield found
    finally:
        # Threads must stop decoding when the consumer stops early.
        decoded.close()


def _join(pieces: list[Batch]) -> Batch:
    fields = {
        field.name: [getattr(piece, field.name) for piece in pieces]
        for field in dataclasses.fields(Batch)
    }
    missing = fields.pop("missing")
    joined = {name: np.concatenate(values) for name, values in fields.items()}
    return Batch(**joined, missing=None if missing[0] is None else np.concatenate(missing))
