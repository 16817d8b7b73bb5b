"""Images -> CLS vectors, or pooled patch tokens, for any encoder."""

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from jist.data import Batch, UnreadableImageError
from jist.models import Encoder, MAEEncoder
from jist.placement import at_once, split_batch

# What a feature vector is made of: the CLS token, the mean of the visible patch tokens, or both.
POOLS = ("cls", "mean", "both")


def feature_dim(encoder: Encoder, pool: str = "cls") -> int:
    """Numbers in a feature vector.

    Raises:
        ValueError: an unknown `pool`, or one of patch tokens that the encoder does not have.
    """
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {POOLS}, got {pool!r}")
    if pool != "cls" and not isinstance(encoder, MAEEncoder):
        raise ValueError(f"pool={pool} needs an encoder with patch tokens, this one has none")
    return encoder.config.dim * (2 if pool == "both" else 1)


def place_weights(encoder: Encoder, batch_size: int) -> tuple[Any, Any]:
    """An encoder's graph, and its weights on all devices over which a batch is split.

    Matrices are stored in the compute type, so that they are not converted for every batch.
    """
    graphdef, weights = nnx.split(encoder)
    weights = jax.tree.map(lambda x: x.astype(encoder.dtype) if x.ndim > 1 else x, weights)
    return graphdef, jax.device_put(weights, NamedSharding(split_batch(batch_size).mesh, P()))


def exact_products(dtype: DTypeLike) -> contextlib.AbstractContextManager[None]:
    """A context in which float32 products have full precision; other types are not affected.

    GPUs would otherwise round the factors to TF32, which keeps 10 bits of 23.
    """
    if jnp.dtype(dtype) == jnp.float32:
        return jax.default_matmul_precision("float32")
    return contextlib.nullcontext()


def cls_vectors(
    encoder: Encoder,
    images: UInt8[Array, "batch side side channels"],
    keep: Int[Array, "batch kept"],
    valid: Bool[Array, "batch kept"] | None = None,
    pool: str = "cls",
) -> Float[Array, "batch dim"]:
    """The CLS vectors [B, D] of some images, or what `pool` says in their place; traceable.

    Args:
        encoder: the frozen encoder.
        images: [B, S, S, C] uint8.
        keep: indices of the visible patches [B, K]; for a ResNet-50, patch 0 is the whole image.
        valid: which of `keep` are no padding, as in `MAEEncoder`; None if all are.
        pool: one of `POOLS`; "both" is CLS first, [B, 2 D].
    """
    if not isinstance(encoder, MAEEncoder):
        with exact_products(encoder.dtype):
            return encoder(encoder.preprocessing.normalize(images)).astype(jnp.float32)

    def encode(rows: tuple[Array, Array, Array | None]) -> Array:
        images, keep, valid = rows
        wanted = 1 if pool == "cls" else None
        tokens = encoder(encoder.preprocessing.normalize(images), keep, valid, wanted=wanted)
        tokens = tokens.astype(jnp.float32)
        if pool == "cls":
            return tokens[:, 0]
        mean = jnp.mean(tokens[:, 1:], axis=1, where=None if valid is None else valid[:, :, None])
        return mean if pool == "mean" else jnp.concatenate([tokens[:, 0], mean], axis=1)

    with exact_products(encoder.dtype):
        return in_parts(encode, (images, keep, valid), tokens=1 + keep.shape[1])


def in_parts(function: Callable[[Any], Any], rows: Any, *, tokens: int) -> Any:
    """Applies a function to a batch, to as many rows at once as is fastest; traceable.

    Args:
        function: from a tree of arrays [P, ...] to another, P of the batch's B rows.
        rows: a tree of arrays [B, ...].
        tokens: number of tokens per row.

    Returns:
        A tree of arrays [B, ...].
    """
    batch_size = len(jax.tree.leaves(rows)[0])
    devices = split_batch(batch_size).num_devices
    part = devices * at_once(batch_size // devices, tokens)
    if part == batch_size:
        return function(rows)
    # Strided, so that a part takes as many rows from each device over which the batch is split.
    parts = jax.tree.map(lambda x: x.reshape(part, -1, *x.shape[1:]).swapaxes(0, 1), rows)
    done = jax.lax.map(function, parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(batch_size, *x.shape[2:]), done)


def encode_batches(
    batches: Iterable[Batch], encode: Callable[[Array, Array], Any], batch_size: int
) -> Iterator[tuple[Batch, Any]]:
    """Encodes each batch while the next is decoded and the results of the last are fetched.

    Args:
        batches: at most `batch_size` images each.
        encode: from images [B, S, S, C] and example ids [B], split over the devices, a tree of
            arrays [B, ...]; it does not wait for them.
        batch_size: size B that batches are padded to.

    Yields:
        A batch and the results for its images, as NumPy arrays.
    """
    sharding = split_batch(batch_size)
    pending: collections.deque[tuple[Batch, Any]] = collections.deque()

    def fetch() -> tuple[Batch, Any]:
        batch, results = pending.popleft()
        return batch, jax.tree.map(lambda x: np.asarray(x)[: len(batch.labels)], results)

    try:
        for batch in batches:
            given = _padded(batch.images, batch_size), _padded(batch.example_ids, batch_size)
            pending.append((batch, encode(*jax.device_put(given, sharding))))
            if len(pending) > 1:
                yield fetch()
    except UnreadableImageError:
        while pending:  # it may be what completes a chunk
            yield fetch()
        raise
    while pending:
        yield fetch()


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    lacking = size - len(rows)
    return np.pad(rows, [(0, lacking)] + [(0, 0)] * (rows.ndim - 1)) if lacking else rows
