"""The frozen encoder over a data set: CLS features on disk.

A feature store is a Zarr v3 group: `cls` [N, D] float32, `label` [N] int32, `keep` [N, K] int32,
`example_id` [N] uint32; its attributes say which data set, encoder and masks it belongs to. It is
written chunk by chunk, each chunk under a temporary name first, so a killed extraction goes on
where it stopped and no chunk is ever half written or computed twice.
"""

import collections
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8, UInt32
from rich.progress import Progress

from jist.data import Batch, Dataset, batches
from jist.masking import FixedMask
from jist.models import MAEEncoder, digest

CHUNK = 1024  # rows; the unit in which work is lost by a kill
UNREADABLE = -1  # label of an image that was skipped

KeepFor = Callable[[Array], Int[Array, "batch kept"]]


@dataclasses.dataclass(frozen=True)
class Features:
    """CLS features in memory, without the images that were skipped.

    Attributes:
        cls: [N, D] float32.
        label: [N] int32.
        example_id: [N] uint32.
        attributes: what the store says of itself.
    """

    cls: Float[np.ndarray, "examples dim"]
    label: Int[np.ndarray, " examples"]
    example_id: UInt32[np.ndarray, " examples"]
    attributes: dict[str, Any]


def extract(
    encoder: MAEEncoder,
    dataset: Dataset,
    out: str | os.PathLike,
    *,
    keep_for: KeepFor,
    batch_size: int = 256,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Features:
    """Encodes the visible patches of every image, or goes on to do so.

    Args:
        encoder: the frozen encoder.
        dataset: the images.
        out: directory of the store; made if missing.
        keep_for: maps example ids [B] to the kept patches [B, K], as `jist.masking.FixedMask` does;
            traceable, and a function of the ids alone.
        batch_size: images encoded at a time; split over the devices where they divide it.
        skip_unreadable: leave out images that cannot be decoded, and list them in the attributes,
            instead of stopping at the first.
        progress: shows a bar, if given.

    Returns:
        The features, as `load` does.

    Raises:
        ValueError: `out` holds features of other data, another encoder or other masks (the fields
            that differ are named), or `batch_size` is not positive.
        UnreadableImageError: an image cannot be decoded.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    out = pathlib.Path(out)
    attributes = _attributes(encoder, dataset, keep_for)
    _open_group(out, attributes)
    arrays = _open_arrays(out, len(dataset), encoder.config.dim, attributes["kept"])
    chunks = range(-(-len(dataset) // CHUNK))
    done = [c for c in chunks if (out / "cls" / "c" / str(c) / "0").exists()]
    bar = progress and progress.add_task(
        f"{dataset.split} images, {attributes['kept']} of {encoder.config.patches} patches",
        total=len(dataset),
        completed=min(len(done) * CHUNK, len(dataset)),
    )
    graphdef, weights = nnx.split(encoder)
    encode = functools.partial(_encode_batch, graphdef, keep_for, weights)
    for chunk in sorted(set(chunks) - set(done)):
        start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, len(dataset))
        images = batches(
            dataset,
            image_size=encoder.config.image_size,
            interpolation=encoder.preprocessing.interpolation,
            batch_size=batch_size,
            rows=range(start, stop),
            skip_unreadable=skip_unreadable,
        )
        rows = []
        for row in _encode(encode, images, batch_size):
            rows.append(row)
            if progress is not None and bar is not None:
                progress.update(bar, advance=len(row["label"]))
        # `cls` last: its presence says that the whole chunk is there.
        for name in ("label", "example_id", "keep", "cls"):
            values = np.concatenate([row[name] for row in rows])
            arrays[name][start:stop].write(values).result()
    if progress is not None and bar is not None:
        progress.update(bar, completed=len(dataset))
    _note_skipped(out, dataset, np.asarray(arrays["label"].read().result()))
    return load(out)


def load(path: str | os.PathLike) -> Features:
    """Reads a feature store whole.

    Raises:
        FileNotFoundError: there is none at `path`, or its extraction has not been finished.
    """
    path = pathlib.Path(path)
    if not (path / "zarr.json").is_file():
        raise FileNotFoundError(f"no features at {path}: there is no zarr.json")
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    if "skipped" not in attributes:
        raise FileNotFoundError(
            f"the features at {path} are not finished; run their extraction again to go on"
        )
    read = {
        name: np.asarray(_spec(path, name, open=True).read().result())
        for name in ("cls", "label", "example_id")
    }
    readable = read["label"] != UNREADABLE
    return Features(
        **{name: array[readable] for name, array in read.items()}, attributes=attributes
    )


def _attributes(encoder: MAEEncoder, dataset: Dataset, keep_for: KeepFor) -> dict[str, Any]:
    examples = hashlib.sha256(dataset.example_ids.tobytes() + dataset.labels.tobytes())
    # Some masks stand for all: they tell apart ratios, seeds and any function of the ids.
    some = np.asarray(keep_for(jnp.asarray(dataset.example_ids[:CHUNK])))
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "class_names": list(dataset.class_names),
        "examples": len(dataset),
        "examples_sha256": examples.hexdigest(),
        "encoder": dataclasses.asdict(encoder.config),
        "encoder_sha256": digest(encoder),
        "masks": dataclasses.asdict(keep_for) if isinstance(keep_for, FixedMask) else None,
        "masks_sha256": hashlib.sha256(some.tobytes()).hexdigest(),
        "kept": some.shape[1],
        "versions": {name: importlib.metadata.version(name) for name in ("jist", "jax", "flax")},
    }


def _open_group(path: pathlib.Path, attributes: dict[str, Any]) -> None:
    """Makes the group, or checks that the one that is there is of the same data and encoder."""
    metadata = path / "zarr.json"
    if not metadata.exists():
        path.mkdir(parents=True, exist_ok=True)
        _write_group(path, attributes)
        return
    found = json.loads(metadata.read_text())["attributes"]
    differ = [
        f"{name} is {found.get(name)!r} there and {wanted!r} here"
        for name, wanted in attributes.items()
        if name not in ("versions", "class_names") and found.get(name) != wanted
    ]
    if differ:
        raise ValueError(
            f"out={path} holds other features; choose another directory or remove it: "
            + "; ".join(differ)
        )


def _write_group(path: pathlib.Path, attributes: dict[str, Any]) -> None:
    staging = path / ".zarr.json.tmp"
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    staging.write_text(json.dumps(group, indent=2) + "\n")
    staging.rename(path / "zarr.json")


def _note_skipped(path: pathlib.Path, dataset: Dataset, labels: np.ndarray) -> None:
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    skipped = [dataset.locate(int(i)) for i in np.flatnonzero(labels == UNREADABLE)]
    _write_group(path, attributes | {"skipped": skipped})


def _spec(path: pathlib.Path, name: str, **options: Any) -> ts.TensorStore:
    kvstore = {"driver": "file", "path": str((path / name).absolute())}
    return ts.open({"driver": "zarr3", "kvstore": kvstore}, **options).result()


def _open_arrays(path: pathlib.Path, rows: int, dim: int, kept: int) -> dict[str, ts.TensorStore]:
    layout: dict[str, tuple[Any, list[int]]] = {
        "cls": (ts.float32, [rows, dim]),
        "label": (ts.int32, [rows]),
        "example_id": (ts.uint32, [rows]),
        "keep": (ts.int32, [rows, kept]),
    }
    return {
        name: _spec(
            path,
            name,
            open=True,
            create=True,
            dtype=dtype,
            shape=shape,
            chunk_layout=ts.ChunkLayout(chunk_shape=[CHUNK, *shape[1:]]),
        )
        for name, (dtype, shape) in layout.items()
    }


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
    tokens = encoder(encoder.preprocessing.normalize(images), keep)
    return tokens[:, 0].astype(jnp.float32), keep


def _encode(encode: Any, images: Iterator[Batch], batch_size: int) -> Iterator[dict]:
    """Encodes one batch while the next is decoded and the one before is fetched."""
    pending: collections.deque = collections.deque()
    for batch in images:
        padding = batch_size - len(batch.labels)
        padded = np.pad(batch.images, [(0, padding), (0, 0), (0, 0), (0, 0)])
        ids = np.pad(batch.example_ids, (0, padding))
        pending.append((batch, encode(*jax.device_put((padded, ids), _split(batch_size)))))
        if len(pending) > 1:
            yield _fetch(*pending.popleft())
    while pending:
        yield _fetch(*pending.popleft())


def _split(batch_size: int) -> jax.sharding.Sharding:
    """Over all devices of this process where they divide the batch, else on the first."""
    devices = jax.local_devices()
    if batch_size % len(devices):
        devices = devices[:1]
    mesh = jax.sharding.Mesh(devices, ("batch",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))


def _fetch(batch: Batch, result: tuple[Array, Array]) -> dict[str, np.ndarray]:
    rows = len(batch.labels)
    return {
        "cls": np.asarray(result[0])[:rows],
        "keep": np.asarray(result[1])[:rows],
        "label": batch.labels,
        "example_id": batch.example_ids,
    }
