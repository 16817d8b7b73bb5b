"""CLS features on disk: the format of a feature store, and how to read it.

A feature store is a Zarr v3 group: `cls` [N, D] float32, `label` [N] int32, `keep` [N, K] int32,
`example_id` [N] uint32; its attributes say which data set, encoder and masks it belongs to. Under
natural masks K is the number of all patches, rows of `keep` are padded with -1, and `missing` [N]
float32 is the share of an image's pixels that is missing. Features of clips have no `keep`; their
`cls` are the log-mel features.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jaxtyping import Float, Int, UInt32
from rich.progress import Progress

from jist import store
from jist.data import Dataset, MaskedImages, NaturalMasks, OnDisk
from jist.features.visible import NO_PATCH, KeepFor, left_out
from jist.masking import FixedMask
from jist.models import Encoder, digest

CHUNK = 1024  # rows; the unit in which work is lost by a kill


@dataclasses.dataclass(frozen=True)
class Features:
    """CLS features, without the images that were skipped.

    Attributes:
        label: [N] int32.
        example_id: [N] uint32.
        attributes: attributes of the store.
        read_cls: reads `cls` when it is first used, so that extraction needs no memory that grows
            with the data set.
        on_disk: gives the same vectors as rows that stay on disk.
    """

    label: Int[np.ndarray, " examples"]
    example_id: UInt32[np.ndarray, " examples"]
    attributes: dict[str, Any]
    read_cls: Callable[[], Float[np.ndarray, "examples dim"]]
    on_disk: Callable[[], OnDisk]

    @functools.cached_property
    def cls(self) -> Float[np.ndarray, "examples dim"]:
        """The CLS vectors [N, D] float32, in memory from their first use on."""
        return self.read_cls()


def describe(
    encoder: Encoder, dataset: Dataset, keep_for: KeepFor | NaturalMasks, pool: str = "cls"
) -> dict[str, Any]:
    """The attributes of a new store; `kept` is its K.

    Args: as for `jist.features.extract`.
    """
    attributes = dataset.describe() | {
        "encoder": dataclasses.asdict(encoder.config),
        "encoder_sha256": digest(encoder),
        **({} if pool == "cls" else {"pool": pool}),  # as in stores before there was a choice
        "masks": None,
        "versions": store.versions("jist", "jax", "flax"),
    }
    if isinstance(keep_for, NaturalMasks):
        own = {"name": keep_for.name} | dataclasses.asdict(keep_for)
        masks = dataset.attributes["masks"] if isinstance(dataset, MaskedImages) else own
        return attributes | {"masks": masks, "kept": encoder.config.patches}
    if isinstance(keep_for, FixedMask):
        attributes["masks"] = dataclasses.asdict(keep_for)
    # The masks of a few ids identify the function: they differ with its ratio and seed.
    some = np.asarray(keep_for(jnp.asarray(dataset.example_ids[:CHUNK])))
    sha256 = hashlib.sha256(some.tobytes()).hexdigest()
    return attributes | {"masks_sha256": sha256, "kept": some.shape[1]}


def create(
    path: pathlib.Path, rows: int, dim: int, attributes: dict[str, Any], *, natural: bool = False
) -> dict[str, ts.TensorStore]:
    """The arrays of a store of N rows, by name, to write; made if missing.

    `keep` is among them if the attributes say how many patches are `kept`, `missing` under natural
    masks.

    Raises:
        ValueError: the store exists with other attributes (the fields are named).
    """
    free = ("versions", "class_names")
    store.open_group(path, attributes, holds="features", free=free)
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "cls": (np.float32, (rows, dim)),
        "label": (np.int32, (rows,)),
        "example_id": (np.uint32, (rows,)),
    }
    if "kept" in attributes:
        layout["keep"] = (np.int32, (rows, attributes["kept"]))
    if natural:
        layout["missing"] = (np.float32, (rows,))
    return {
        name: store.create_array(path, name, dtype, shape, chunk=CHUNK)
        for name, (dtype, shape) in layout.items()
    }


def finish(
    path: pathlib.Path,
    dataset: Dataset,
    arrays: dict[str, ts.TensorStore],
    *,
    natural: bool,
    skip_unreadable: bool,
    skip_empty: bool,
) -> None:
    """Completes a store all of whose rows are written, by noting which images were left out.

    Args:
        path: the store.
        dataset: the images.
        arrays: the arrays of the store.
        natural: whether the masks are natural; the shares of missing patches and pixels, of images
            that are not left out, are then noted.
        skip_unreadable: as for `left_out`.
        skip_empty: as for `left_out`.

    Raises:
        UnreadableImageError, EmptyImageError: as `left_out`.
    """
    attributes = store.read_attributes(path) | left_out(
        dataset, store.read(path, "label"), skip_unreadable=skip_unreadable, skip_empty=skip_empty
    )
    if natural:
        keep = store.read(path, "keep")
        counts = (keep != NO_PATCH).sum(axis=1)
        shown = float(counts[counts > 0].mean()) if counts.any() else 0.0
        attributes["missing_share"] = 1 - shown / keep.shape[1]
        with contextlib.suppress(store.StoreError):  # stores from before it was written
            share = store.read(path, "missing")[store.read(path, "label") >= 0]
            attributes["missing_pixels"] = float(share.mean()) if len(share) else 0.0
    store.finish_group(path, attributes, arrays, CHUNK)


def said_above(progress: Progress | None) -> Callable[[str], None] | None:
    """Prints lines above a bar; None if there is no bar, and so nobody to tell."""
    return progress and functools.partial(progress.console.print, soft_wrap=True)


def load(path: str | os.PathLike) -> Features:
    """Opens a feature store; its CLS vectors are read, whole, when they are first used.

    Raises:
        FileNotFoundError: there is none at `path`, or its extraction has not been finished.
        StoreError: an array is missing or damaged (for the CLS vectors, when they are read).
    """
    path = pathlib.Path(path)
    if not (path / "zarr.json").is_file():
        raise FileNotFoundError(f"no features at {path}: there is no zarr.json")
    attributes = store.read_attributes(path)
    if "skipped" not in attributes:
        raise FileNotFoundError(
            f"the features at {path} are not finished; run their extraction again to go on"
        )
    label = store.read(path, "label")
    there = label >= 0
    return Features(
        label=label[there],
        example_id=store.read(path, "example_id")[there],
        attributes=attributes,
        read_cls=functools.partial(_read_cls, path.absolute(), there),
        on_disk=functools.partial(_on_disk, path.absolute(), there),
    )


def _on_disk(path: pathlib.Path, there: np.ndarray) -> OnDisk:
    return OnDisk(store.StoredRows(path, "cls"), np.flatnonzero(there))


def _read_cls(path: pathlib.Path, there: np.ndarray) -> np.ndarray:
    cls = store.read(path, "cls")
    return cls if there.all() else cls[there]  # usually nothing is skipped, and no copy is needed
