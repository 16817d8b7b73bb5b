"""A data set of masked images: the visible patches and their indices, and nothing else.

A sensor that never saw the missing patches, or discarded them, would send just this (Kariotakis et
al., CPAL 2024, §3.1.1, "Datasets Size"). One Zarr v3 group per split: `patches` [N, K, P·P·C]
uint8, a patch row by row; `keep` [N, K], in the smallest integer type that holds the number of
patches; `count` [N]; `label` [N]; `example_id` [N]; all compressed by Zstandard. Rows of images
with fewer than K visible patches are padded with zeros. Written chunk by chunk like features, so a
killed run resumes.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from rich.progress import Progress

from jist import store
from jist.data import Dataset, NaturalMasks
from jist.features.stored import said_above
from jist.features.visible import NO_PATCH, left_out, visible_batches
from jist.masking import FixedMask
from jist.models import MAEEncoder

CHUNK = 256  # rows


def write_masked(
    dataset: Dataset,
    out: str | os.PathLike,
    *,
    masks: FixedMask | NaturalMasks,
    encoder: MAEEncoder,
    skip_unreadable: bool = False,
    skip_empty: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the visible patches of every image, or resumes doing so.

    Args:
        dataset: the images.
        out: directory of the split; made if missing.
        masks: which patches are visible.
        encoder: gives image size, patch size and resizing; its weights are not used.
        skip_unreadable: leave out images that cannot be decoded instead of stopping at the first.
        skip_empty: the same for images without a visible patch.
        progress: shows a bar, if given.

    Returns:
        The attributes of the group: `patches_kept` counts the patches of all images together,
        `bytes` holds the bytes of the kept patches and their indices (`raw`) and of all files
        but the description of the group (`files`).

    Raises:
        ValueError: `out` holds another data set or other masks (the fields that differ are named).
        UnreadableImageError: an image cannot be decoded.
        EmptyImageError: nothing of an image is visible.
    """
    out = pathlib.Path(out)
    attributes = _attributes(dataset, masks, encoder)
    store.open_group(out, attributes, holds="masked images", free=("class_names",))
    width = attributes["kept"] or encoder.config.patches
    arrays = _create(out, len(dataset), width, encoder)
    todo = store.chunks_to_write(out, arrays, CHUNK, said_above(progress))
    rows = [row for chunk in todo for row in chunk]
    bar = progress and progress.add_task(
        f"{dataset.split} images, masked",
        total=len(dataset),
        completed=len(dataset) - len(rows),
    )
    found = visible_batches(
        dataset,
        masks,
        encoder,
        rows=rows,
        batch_size=CHUNK,
        skip_unreadable=skip_unreadable,
        skip_empty=skip_empty,
    )
    for chunk, some in zip(todo, found, strict=True):
        written = {
            "count": some.counts,
            "label": some.labels,
            "example_id": some.example_ids,
            "keep": np.maximum(some.keep, 0),
            "patches": _patches(some.images, some.keep, encoder.config.patch_size),
        }
        for name, values in written.items():
            store.write(arrays[name][chunk.start : chunk.stop], values)
        if progress is not None and bar is not None:
            progress.update(bar, advance=len(some.labels))
    counts, labels = store.read(out, "count"), store.read(out, "label")
    noted = attributes | left_out(
        dataset, labels, skip_unreadable=skip_unreadable, skip_empty=skip_empty
    )
    noted["patches_kept"] = int(counts.sum(dtype=np.int64))
    noted["bytes"] = _sizes(out, counts, arrays)
    store.finish_group(out, noted, arrays, CHUNK)
    return noted


def _attributes(
    dataset: Dataset, masks: FixedMask | NaturalMasks, encoder: MAEEncoder
) -> dict[str, Any]:
    how = encoder.preprocessing  # stores from before there was a choice list none
    return dataset.describe() | {
        "image_size": encoder.config.image_size,
        "patch_size": encoder.config.patch_size,
        **({} if dataset.channels == 3 else {"channels": dataset.channels}),
        "interpolation": how.interpolation,
        **({} if how.resize == "crop" else {"resize": how.resize}),
        **({"border": how.border} if how.border else {}),
        "masks": {"name": masks.name} | dataclasses.asdict(masks),
        "kept": masks.kept if isinstance(masks, FixedMask) else None,
    }


def _create(path: pathlib.Path, rows: int, width: int, encoder: MAEEncoder) -> dict[str, Any]:
    patches = encoder.config.patches
    pixels = encoder.config.channels * encoder.config.patch_size**2
    layout: dict[str, tuple[Any, tuple[int, ...]]] = {
        "patches": (np.uint8, (rows, width, pixels)),
        "keep": (np.min_scalar_type(patches - 1), (rows, width)),
        "count": (np.min_scalar_type(patches), (rows,)),
        "label": (np.int32, (rows,)),
        "example_id": (np.uint32, (rows,)),
    }
    return {
        name: store.create_array(path, name, dtype, shape, chunk=CHUNK, compressed=True)
        for name, (dtype, shape) in layout.items()
    }


def _patches(images: np.ndarray, keep: np.ndarray, patch_size: int) -> np.ndarray:
    """The kept patches [B, K, P·P·C], padded with zeros."""
    batch, side, _, channels = images.shape
    grid = side // patch_size
    cut = images.reshape(batch, grid, patch_size, grid, patch_size, channels).swapaxes(2, 3)
    patches = cut.reshape(batch, grid**2, channels * patch_size**2)
    kept = np.take_along_axis(patches, np.maximum(keep, 0)[:, :, None], axis=1)
    return np.where((keep != NO_PATCH)[:, :, None], kept, 0)


def _sizes(path: pathlib.Path, counts: np.ndarray, arrays: dict[str, Any]) -> dict[str, int]:
    patch = arrays["patches"].shape[2] + arrays["keep"].dtype.numpy_dtype.itemsize
    arrays_alone = (file for file in path.glob("*/**/*") if file.is_file())
    files = sum(file.stat().st_size for file in arrays_alone)
    return {"raw": int(counts.sum(dtype=np.int64)) * patch, "files": files}
