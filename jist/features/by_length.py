"""Images with different numbers of visible patches, encoded in batches of about one length.

Under natural masks the number of visible patches differs between images. Images are sorted by that
number, cut into batches, and padded to one of a few lengths, so that few programs are compiled and
little work is spent on padding. No token attends to padding: an image has the same CLS vector, up
to float rounding, in any batch.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from jist.features.encoding import cls_vectors, feature_dim, place_weights
from jist.features.visible import NO_PATCH
from jist.models import MAEEncoder
from jist.placement import split_batch

LENGTHS = 8  # programs at most


class ByLength:
    """Encodes images with padding.

    Args:
        encoder: the frozen encoder.
        batch_size: images encoded at a time; split over the devices that divide it.
        length: the number of visible patches if it is the same for every image; they are then
            encoded without padding, like images with fixed masks.
        pool: as `jist.features.cls_vectors`.
    """

    def __init__(
        self,
        encoder: MAEEncoder,
        batch_size: int,
        length: int | None = None,
        pool: str = "cls",
    ):
        patches = encoder.config.patches
        steps = range(1, LENGTHS + 1)
        self.lengths = [length] if length else [-(-patches * step // LENGTHS) for step in steps]
        self.padded = length is None
        self.batch_size = batch_size
        self.encoder = encoder
        graphdef, weights = place_weights(encoder, batch_size)
        self._encode = functools.partial(_encode, graphdef, pool, weights)
        self._dim = feature_dim(encoder, pool)

    def __call__(
        self,
        images: UInt8[np.ndarray, "batch side side channels"],
        keep: Int[np.ndarray, "batch kept"],
    ) -> Float[np.ndarray, "batch dim"]:
        """CLS vectors [B, D] of any number of images.

        Args:
            images: [B, S, S, C] uint8.
            keep: visible patches [B, K], as `jist.features.visible.Visible`; an image with none
                gets zeros.
        """
        counts = (keep != NO_PATCH).sum(axis=1)
        cls = np.zeros((len(images), self._dim), np.float32)
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        pending = [
            (rows, self._encode(*self._batch(images, keep, counts, rows)))
            for rows in self._cut(order)
        ]
        for rows, encoded in pending:
            cls[rows] = np.asarray(encoded)[: len(rows)]
        return cls

    def _cut(self, order: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _batch(
        self, images: np.ndarray, keep: np.ndarray, counts: np.ndarray, rows: np.ndarray
    ) -> tuple[Array, Array, Array | None]:
        length = next(length for length in self.lengths if length >= counts[rows].max())
        padded = np.zeros((self.batch_size, *images.shape[1:]), np.uint8)
        padded[: len(rows)] = images[rows]
        shown = np.zeros((self.batch_size, length), np.int32)
        width = min(length, keep.shape[1])
        shown[: len(rows), :width] = np.maximum(keep[rows, :width], 0)
        valid = np.zeros((self.batch_size, length), bool)
        valid[: len(rows)] = np.arange(length) < counts[rows, None]
        sharding = split_batch(self.batch_size)
        return jax.device_put((padded, shown, valid if self.padded else None), sharding)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    graphdef: Any,
    pool: str,
    weights: Any,
    images: UInt8[Array, "batch side side channels"],
    keep: Int[Array, "batch kept"],
    valid: Bool[Array, "batch kept"] | None,
) -> Float[Array, "batch dim"]:
    return cls_vectors(nnx.merge(graphdef, weights), images, keep, valid, pool)
