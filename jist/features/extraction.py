"""The frozen encoder over a data set: CLS features on disk.

A feature store is a Zarr v3 group: `cls` [N, D] float32, `label` [N] int32, `keep` [N, K] int32,
`example_id` [N] uint32; its attributes say which data set, encoder and masks it belongs to. Under
natural masks K is the number of all patches, and rows of `keep` end with -1. It is written chunk by
chunk, each chunk under a temporary name first, so a killed extraction goes on where it stopped and
no chunk is ever half written or computed twice.
"""

import collections
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, UInt8
from rich.progress import Progress

from jist import store
from jist.data import Batch, Dataset, MaskedImages, NaturalMasks, batches
from jist.features.by_length import ByLength
from jist.features.encoding import cls_vectors, place_weights
from jist.features.stored import CHUNK, Features, load
from jist.features.visible import (
    EMPTY,
    NO_PATCH,
    UNREADABLE,
    KeepFor,
    nothing_visible,
    visible_batches,
)
from jist.masking import FixedMask
from jist.models import Encoder, MAEEncoder, digest
from jist.placement import split_batch


def extract(
    encoder: Encoder,
    dataset: Dataset,
    out: str | os.PathLike,
    *,
    keep_for: KeepFor | NaturalMasks,
    batch_size: int = 256,
    skip_unreadable: bool = False,
    skip_empty: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Encodes the visible patches of every image, or goes on to do so.

    Args:
        encoder: the frozen encoder; a ResNet-50, which sees images whole, gives its averages for
            CLS vectors.
        dataset: the images.
        out: directory of the store; made if missing.
        keep_for: maps example ids [B] to the kept patches [B, K], as `jist.masking.FixedMask` does;
            traceable, and a function of the ids alone. Or how the images' own missing regions are
            found; `jist.masking.visible_patches` are then kept.
        batch_size: images encoded at a time; split over the devices that divide it.
        skip_unreadable: leave out images that cannot be decoded, and list them in the attributes,
            instead of stopping at the first.
        skip_empty: the same for images without a visible patch.
        progress: shows a bar, if given.

    Returns:
        The features, as `load` does.

    Raises:
        ValueError: `out` holds features of other data, another encoder or other masks (the fields
            that differ are named), `batch_size` is not positive, or the encoder cannot do without
            the missing regions.
        UnreadableImageError: an image cannot be decoded.
        EmptyImageError: nothing of an image is visible.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    length = None
    if isinstance(dataset, MaskedImages):
        dataset.check(encoder.config.image_size, encoder.config.patch_size)
        length = dataset.kept
    out = pathlib.Path(out)
    attributes = _attributes(encoder, dataset, keep_for)
    free = ("versions", "class_names")
    store.open_group(out, attributes, holds="features", free=free)
    arrays = _open_arrays(out, len(dataset), encoder.config.dim, attributes["kept"])
    chunks = range(-(-len(dataset) // CHUNK))
    done = [c for c in chunks if store.chunk_file(out, "cls", 2, c).exists()]
    shown = "the visible ones" if isinstance(keep_for, NaturalMasks) else attributes["kept"]
    bar = progress and progress.add_task(
        f"{dataset.split} images, {shown} of {encoder.config.patches} patches",
        total=len(dataset),
        completed=min(len(done) * CHUNK, len(dataset)),
    )
    if isinstance(keep_for, NaturalMasks):
        skip = {"skip_unreadable": skip_unreadable, "skip_empty": skip_empty}
        if not isinstance(encoder, MAEEncoder):
            raise ValueError(f"keep_for={keep_for} needs an encoder that can leave patches out")
        by_length = ByLength(encoder, batch_size, length)
        encode = functools.partial(_natural_rows, dataset, keep_for, by_length, batch_size, skip)
    else:
        graphdef, weights = place_weights(encoder, batch_size)
        encode_batch = functools.partial(_encode_batch, graphdef, keep_for, weights)
        encode = functools.partial(
            _fixed_rows, dataset, encoder, encode_batch, batch_size, skip_unreadable
        )
    for chunk in sorted(set(chunks) - set(done)):
        start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, len(dataset))
        rows = []
        for row in encode(range(start, stop)):
            rows.append(row)
            if progress is not None and bar is not None:
                progress.update(bar, advance=len(row["label"]))
        # `cls` last: its presence says that the whole chunk is there.
        for name in ("label", "example_id", "keep", "cls"):
            values = np.concatenate([row[name] for row in rows])
            arrays[name][start:stop].write(values).result()
    if progress is not None and bar is not None:
        progress.update(bar, completed=len(dataset))
    _note_skipped(out, dataset, np.asarray(arrays["label"].read().result()), skip_empty)
    if isinstance(keep_for, NaturalMasks):
        _note_share(out, np.asarray(arrays["keep"].read().result()))
    return load(out)


def _attributes(
    encoder: Encoder, dataset: Dataset, keep_for: KeepFor | NaturalMasks
) -> dict[str, Any]:
    examples = hashlib.sha256(dataset.example_ids.tobytes() + dataset.labels.tobytes())
    attributes = {
        "dataset": dataset.name,
        "split": dataset.split,
        "class_names": list(dataset.class_names),
        "examples": len(dataset),
        "examples_sha256": examples.hexdigest(),
        "encoder": dataclasses.asdict(encoder.config),
        "encoder_sha256": digest(encoder),
        "masks": None,
        "versions": {name: importlib.metadata.version(name) for name in ("jist", "jax", "flax")},
    }
    if isinstance(keep_for, NaturalMasks):
        own = {"name": keep_for.name} | dataclasses.asdict(keep_for)
        masks = dataset.attributes["masks"] if isinstance(dataset, MaskedImages) else own
        return attributes | {"masks": masks, "kept": encoder.config.patches}
    if isinstance(keep_for, FixedMask):
        attributes["masks"] = dataclasses.asdict(keep_for)
    # Some masks stand for all: they tell apart ratios, seeds and any function of the ids.
    some = np.asarray(keep_for(jnp.asarray(dataset.example_ids[:CHUNK])))
    sha256 = hashlib.sha256(some.tobytes()).hexdigest()
    return attributes | {"masks_sha256": sha256, "kept": some.shape[1]}


def _note_skipped(
    path: pathlib.Path, dataset: Dataset, labels: np.ndarray, skip_empty: bool
) -> None:
    empty = np.flatnonzero(labels == EMPTY)
    if len(empty) and not skip_empty:  # they were, when the store was written
        raise nothing_visible(dataset.locate(int(empty[0])))
    noted = {
        "skipped": [dataset.locate(int(i)) for i in np.flatnonzero(labels == UNREADABLE)],
        "empty": [dataset.locate(int(i)) for i in empty],
    }
    store.write_attributes(path, store.read_attributes(path) | noted)


def _note_share(path: pathlib.Path, keep: np.ndarray) -> None:
    """Notes the share of patches that is missing, over all images that show any."""
    counts = (keep != NO_PATCH).sum(axis=1)
    share = float(1 - counts[counts > 0].mean() / keep.shape[1]) if counts.any() else 1.0
    store.write_attributes(path, store.read_attributes(path) | {"missing_share": share})


def _open_arrays(path: pathlib.Path, rows: int, dim: int, kept: int) -> dict[str, Any]:
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "cls": (np.float32, (rows, dim)),
        "label": (np.int32, (rows,)),
        "example_id": (np.uint32, (rows,)),
        "keep": (np.int32, (rows, kept)),
    }
    return {
        name: store.create_array(path, name, dtype, shape, chunk=CHUNK)
        for name, (dtype, shape) in layout.items()
    }


def _natural_rows(
    dataset: Dataset,
    masks: NaturalMasks,
    encode: ByLength,
    batch_size: int,
    skip: dict[str, bool],
    rows: range,
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of a chunk at once: images of like length may stand far apart in it."""
    found = list(
        visible_batches(dataset, masks, encode.encoder, rows=rows, batch_size=batch_size, **skip)
    )
    images = np.concatenate([some.images for some in found])
    keep = np.concatenate([some.keep for some in found])
    yield {
        "cls": encode(images, keep),
        "keep": keep,
        "label": np.concatenate([some.labels for some in found]),
        "example_id": np.concatenate([some.example_ids for some in found]),
    }


def _fixed_rows(
    dataset: Dataset,
    encoder: Encoder,
    encode_batch: Callable[[Array, Array], tuple[Array, Array]],
    batch_size: int,
    skip_unreadable: bool,
    rows: range,
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of a chunk, one batch encoded while the next is decoded."""
    images = batches(
        dataset,
        image_size=encoder.config.image_size,
        interpolation=encoder.preprocessing.interpolation,
        batch_size=batch_size,
        rows=rows,
        skip_unreadable=skip_unreadable,
    )
    pending: collections.deque = collections.deque()
    for batch in images:
        padding = batch_size - len(batch.labels)
        padded = np.pad(batch.images, [(0, padding), (0, 0), (0, 0), (0, 0)])
        ids = np.pad(batch.example_ids, (0, padding))
        on_devices = jax.device_put((padded, ids), split_batch(batch_size))
        pending.append((batch, encode_batch(*on_devices)))
        if len(pending) > 1:
            yield _fetch(*pending.popleft())
    while pending:
        yield _fetch(*pending.popleft())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode_batch(
    graphdef: Any,
    keep_for: KeepFor,
    weights: Any,
    images: UInt8[Array, "batch side side 3"],
    example_ids: Array,
) -> tuple[Array, Array]:
    encoder = nnx.merge(graphdef, weights)
    keep = keep_for(example_ids)
    return cls_vectors(encoder, images, keep), keep


def _fetch(batch: Batch, result: tuple[Array, Array]) -> dict[str, np.ndarray]:
    rows = len(batch.labels)
    return {
        "cls": np.asarray(result[0])[:rows],
        "keep": np.asarray(result[1])[:rows],
        "label": batch.labels,
        "example_id": batch.example_ids,
    }
