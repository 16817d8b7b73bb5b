"""CLS vectors under random masks: the frozen encoder in the training loop.

With random masks every image shows other patches in every epoch (Kariotakis et al., CPAL 2024,
§2.1), so its CLS vector is recomputed each time. The visible patches are a function of (seed,
epoch, example id) alone: repeating an epoch gives the same ones.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Integer, UInt8

from jist.data import Batch, Dataset, batches
from jist.features.encoding import cls_vectors, encode_batches, place_weights
from jist.masking import patches_kept, random_keep
from jist.models import MAEEncoder
from jist.placement import available_memory_bytes


def epoch_keep(
    seed: int,
    epoch: int | Int[Array, ""],
    example_ids: Integer[Array | np.ndarray, " batch"],
    patches: int,
    ratio: float,
) -> Int[Array, "batch kept"]:
    """The masks of some images in one epoch.

    Args:
        seed: seed of the masks.
        epoch: number of the epoch, from 1.
        example_ids: stable ids of the images [B], integers of at most 32 bits.
        patches: number of patches L of an image.
        ratio: masking ratio r in [0, 1).

    Returns:
        Indices of the kept patches [B, K], i32, ascending, K = int(L (1 - r)).

    Raises:
        ValueError: as `jist.masking.patches_kept`.
    """
    key = jax.random.fold_in(jax.random.key(seed), epoch)

    def keep(example_id: Array) -> Array:
        return random_keep(jax.random.fold_in(key, example_id), 1, patches, ratio)[0]

    return jax.vmap(keep)(jnp.asarray(example_ids).astype(jnp.uint32))


class EpochEncoder:
    """Encodes a data set once for every epoch, each time under other masks.

    Decoded images are kept in memory as uint8 where they take at most a quarter of it, else they
    are decoded again every epoch. Results are the same.

    Args:
        encoder: the frozen encoder.
        dataset: the images.
        ratio: masking ratio r in [0, 1).
        seed: seed of the masks.
        pool: as `jist.features.cls_vectors`.
        batch_size: images encoded at a time; split over the devices that divide it.
        skip_unreadable: leave out images that cannot be decoded instead of stopping at the first.
        in_memory: whether decoded images are kept in memory; by default their size decides.

    Raises:
        ValueError: as `jist.masking.patches_kept`, or `batch_size` is not positive.
    """

    def __init__(
        self,
        encoder: MAEEncoder,
        dataset: Dataset,
        *,
        ratio: float,
        seed: int,
        pool: str = "cls",
        batch_size: int = 256,
        skip_unreadable: bool = False,
        in_memory: bool | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        patches_kept(encoder.config.patches, ratio)
        self.encoder = encoder
        self.dataset = dataset
        self.batch_size = batch_size
        self.skip_unreadable = skip_unreadable
        self.in_memory = self._fits() if in_memory is None else in_memory
        self._decoded: list[Batch] = []
        graphdef, self._weights = place_weights(encoder, batch_size)
        self._encode = functools.partial(_encode, graphdef, ratio, seed, pool)

    def __call__(self, epoch: int) -> Float[np.ndarray, "examples dim"]:
        """The CLS vectors of all readable images in an epoch, in the order of the data set."""
        encode = functools.partial(self._encode, self._weights, epoch)
        found = encode_batches(self._batches(), encode, self.batch_size)
        return np.concatenate([cls[batch.readable] for batch, cls in found])

    def _fits(self) -> bool:
        needed = len(self.dataset) * self.dataset.channels * self.encoder.config.image_size**2
        return needed <= available_memory_bytes() / 4

    def _batches(self) -> Iterator[Batch]:
        if self._decoded:
            yield from self._decoded
            return
        decoded = []
        for batch in batches(
            self.dataset,
            image_size=self.encoder.config.image_size,
            preprocessing=self.encoder.preprocessing,
            batch_size=self.batch_size,
            skip_unreadable=self.skip_unreadable,
        ):
            if self.in_memory:
                decoded.append(batch)
            yield batch
        self._decoded = decoded


# The epoch is an argument, not a constant: all epochs run one compiled program.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _encode(
    graphdef: Any,
    ratio: float,
    seed: int,
    pool: str,
    weights: Any,
    epoch: Array,
    images: UInt8[Array, "batch side side channels"],
    example_ids: Array,
) -> Array:
    encoder = nnx.merge(graphdef, weights)
    keep = epoch_keep(seed, epoch, example_ids, encoder.config.patches, ratio)
    return cls_vectors(encoder, images, keep, pool=pool)
