"""Extraction: CLS features of a data set by a frozen encoder, written to disk.

They are written chunk by chunk, each chunk under a temporary name first, so a killed extraction
resumes where it stopped and no chunk is ever half written or computed twice.
"""

import functools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, UInt8
from rich.progress import Progress

from jist import store
from jist.data import Dataset, MaskedImages, NaturalMasks, batches
from jist.features.by_length import ByLength
from jist.features.encoding import cls_vectors, encode_batches, feature_dim, place_weights
from jist.features.stored import CHUNK, Features, create, describe, finish, load, said_above
from jist.features.visible import KeepFor, visible_batches
from jist.models import Encoder, MAEEncoder

Rows = dict[str, np.ndarray]  # of the arrays of a store, by name


def extract(
    encoder: Encoder,
    dataset: Dataset,
    out: str | os.PathLike,
    *,
    keep_for: KeepFor | NaturalMasks,
    pool: str = "cls",
    batch_size: int = 256,
    skip_unreadable: bool = False,
    skip_empty: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Encodes the visible patches of every image, or resumes doing so.

    Args:
        encoder: the frozen encoder; for a ResNet-50, which needs whole images, its pooled features
            stand in for CLS vectors.
        dataset: the images.
        out: directory of the store; made if missing.
        keep_for: maps example ids [B] to the kept patches [B, K], as `jist.masking.FixedMask` does;
            traceable, and a function of the ids alone. Or a `NaturalMasks`, which finds the missing
            regions of the images; `jist.masking.visible_patches` are then kept.
        pool: what is stored: "cls", "mean" (of the visible patch tokens) or "both".
        batch_size: images encoded at a time; split over the devices that divide it.
        skip_unreadable: leave out images that cannot be decoded, and list them in the attributes,
            instead of stopping at the first.
        skip_empty: the same for images without a visible patch.
        progress: shows a bar, if given.

    Returns:
        The features, as `load` does.

    Raises:
        ValueError: `out` holds features of other data, another encoder or other masks (the fields
            that differ are named), `batch_size` is not positive, the encoder cannot leave patches
            out, or masks are given for images that are masked already.
        UnreadableImageError: an image cannot be decoded, or could not when `out` was begun.
        EmptyImageError: likewise, for an image without a visible patch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    dim, length = feature_dim(encoder, pool), None
    skip = {"skip_unreadable": skip_unreadable, "skip_empty": skip_empty}
    if isinstance(dataset, MaskedImages):
        shape = encoder.config
        dataset.check(shape.image_size, shape.patch_size, encoder.preprocessing)
        length = dataset.kept
        if isinstance(keep_for, NaturalMasks) and keep_for.takes_more:
            raise ValueError(
                f"keep_for={keep_for} cannot be applied to {dataset.name}, which is masked already"
            )
    if isinstance(keep_for, NaturalMasks):
        if not isinstance(encoder, MAEEncoder):
            raise ValueError(f"keep_for={keep_for} needs an encoder that can leave patches out")
        by_length = ByLength(encoder, batch_size, length, pool)
        encode = functools.partial(_encode_natural, dataset, keep_for, by_length, skip)
    else:
        encode = functools.partial(
            _encode_fixed, dataset, keep_for, encoder, pool, batch_size, skip_unreadable
        )
    out, natural = pathlib.Path(out), isinstance(keep_for, NaturalMasks)
    attributes = describe(encoder, dataset, keep_for, pool)
    arrays = create(out, len(dataset), dim, attributes, natural=natural)
    todo = store.chunks_to_write(out, arrays, CHUNK, said_above(progress))
    rows = [row for chunk in todo for row in chunk]
    shown = "the visible ones" if isinstance(keep_for, NaturalMasks) else attributes["kept"]
    bar = progress and progress.add_task(
        f"{dataset.split} images, {shown} of {encoder.config.patches} patches",
        total=len(dataset),
        completed=len(dataset) - len(rows),
    )
    encoded = _chunks(_shown(encode(rows), progress, bar))
    for chunk, found in zip(todo, encoded, strict=True):
        for name in ("label", "example_id", "keep", *(("missing",) if natural else ()), "cls"):
            store.write(arrays[name][chunk.start : chunk.stop], found[name])
    finish(out, dataset, arrays, natural=natural, **skip)
    return load(out)


def _shown(parts: Iterable[Rows], progress: Progress | None, bar: Any) -> Iterator[Rows]:
    for part in parts:
        if progress is not None:
            progress.update(bar, advance=len(part["label"]))
        yield part


def _chunks(parts: Iterable[Rows]) -> Iterator[Rows]:
    """Joins rows until a chunk is full, or there are no more; no part spans two chunks."""
    waiting: list[Rows] = []
    for part in parts:
        waiting.append(part)
        if sum(len(some["label"]) for some in waiting) == CHUNK:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _encode_natural(
    dataset: Dataset,
    masks: NaturalMasks,
    encode: ByLength,
    skip: dict[str, bool],
    rows: list[int],
) -> Iterator[Rows]:
    """Encodes a whole chunk at once: images of similar length may be far apart in it."""
    found = visible_batches(
        dataset,
        masks,
        encode.encoder,
        rows=rows,
        batch_size=encode.batch_size,
        chunk=CHUNK,
        **skip,
    )
    parts = (
        {
            "images": some.images,
            "keep": some.keep,
            "label": some.labels,
            "example_id": some.example_ids,
            "missing": some.missing,
        }
        for some in found
    )
    for chunk in _chunks(parts):
        cls = encode(chunk.pop("images"), chunk["keep"])
        yield chunk | {"cls": cls}


def _encode_fixed(
    dataset: Dataset,
    keep_for: KeepFor,
    encoder: Encoder,
    pool: str,
    batch_size: int,
    skip_unreadable: bool,
    rows: list[int],
) -> Iterator[Rows]:
    images = batches(
        dataset,
        image_size=encoder.config.image_size,
        preprocessing=encoder.preprocessing,
        batch_size=batch_size,
        rows=rows,
        chunk=CHUNK,
        skip_unreadable=skip_unreadable,
    )
    graphdef, weights = place_weights(encoder, batch_size)
    encode = functools.partial(_encode, graphdef, keep_for, pool, weights)
    for batch, (cls, keep) in encode_batches(images, encode, batch_size):
        yield {"cls": cls, "keep": keep, "label": batch.labels, "example_id": batch.example_ids}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _encode(
    graphdef: Any,
    keep_for: KeepFor,
    pool: str,
    weights: Any,
    images: UInt8[Array, "batch side side channels"],
    example_ids: Array,
) -> tuple[Array, Array]:
    encoder = nnx.merge(graphdef, weights)
    keep = keep_for(example_ids)
    return cls_vectors(encoder, images, keep, pool=pool), keep
