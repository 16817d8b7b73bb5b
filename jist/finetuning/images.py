"""A data set of images with their masks, as `jist.trainer` takes it."""

from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jist.data import Dataset
from jist.data.images.undecoded import Undecoded
from jist.features.random_masks import epoch_keep
from jist.masking import FixedMask
from jist.models import MAEEncoder, Preprocessing

MASKS = ("fixed", "random")


def read_images(
    dataset: Dataset, image_size: int, preprocessing: Preprocessing, *, resident: bool = True
) -> UInt8[np.ndarray, "examples side side channels"] | Undecoded:
    """All images of a data set, resized: in memory, or decoded when they are used.

    Raises:
        UnreadableImageError: an image cannot be decoded, and they are read now.
    """
    images = Undecoded(dataset, image_size, preprocessing)
    return images[:] if resident else images


class MaskedImages:
    """Images as uint8, and the masks of every epoch.

    A mask is a function of seed, epoch and example, as that of features is (`jist.features`).

    Args:
        dataset: the images.
        encoder: gives image size, patches and resizing.
        ratio: masking ratio r in [0, 1).
        seed: seed of the masks.
        resident: whether images are decoded once and kept in memory, or whenever they are used.

    Attributes:
        fixed: examples {"x": {"image": u8 [N, S, S, 3], "keep": i32 [N, K]}, "y": i32 [N]} under
            fixed masks, for training or testing.

    Raises:
        ValueError: as `jist.masking.patches_kept`.
        UnreadableImageError: an image cannot be decoded.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoder: MAEEncoder,
        *,
        ratio: float,
        seed: int,
        resident: bool = True,
    ):
        mask = FixedMask(encoder.config.patches, ratio, seed)
        images = read_images(
            dataset, encoder.config.image_size, encoder.preprocessing, resident=resident
        )
        self._mask = mask
        self._ids = dataset.example_ids
        keep = np.asarray(mask(self._ids))
        self.fixed: dict[str, Any] = {
            "x": {
                "image": jax.device_put(images) if resident else images,
                "keep": jax.device_put(keep),
            },
            "y": jax.device_put(dataset.labels),
        }

    def random(self, epoch: int) -> dict[str, Any]:
        """The examples under the random masks of an epoch, counted from 1."""
        mask = self._mask
        keep = epoch_keep(mask.seed, epoch, self._ids, mask.patches, mask.ratio)
        return {"x": self.fixed["x"] | {"keep": keep}, "y": self.fixed["y"]}
