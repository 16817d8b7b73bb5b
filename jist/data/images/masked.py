"""Data sets of masked images: only the visible patches, as `jist.masked_images` writes them."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Int, UInt32
from PIL import Image

from jist import store
from jist.data.dataset import Dataset
from jist.data.errors import DataError, UnreadableImageError
from jist.data.images.decoding import Pixels
from jist.models.preprocessing import Preprocessing

_CACHE = {"cache_pool": {"total_bytes_limit": 2**28}}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedImages(Dataset):
    """The visible patches of one split.

    Attributes:
        path: the directory of the split, a Zarr group.
        rows: where in its arrays each example is [N].
        ids: the examples' ids in the data set that was masked [N].
        attributes: attributes of the group.
    """

    path: pathlib.Path
    rows: Int[np.ndarray, " examples"]
    ids: UInt32[np.ndarray, " examples"]
    attributes: dict[str, Any]

    @functools.cached_property
    def example_ids(self) -> UInt32[np.ndarray, " examples"]:
        """The stable ids [N], those of the data set that was masked."""
        return self.ids

    @property
    def kept(self) -> int | None:
        """Number of visible patches of an image; None where it differs between images."""
        return self.attributes["kept"]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.attributes.get("channels", 3)  # stores from before there were bands

    @property
    def border(self) -> int:
        """The border of the preprocessing by which patches were cut, in pixels."""
        return self.attributes.get("border", 0)

    def check(self, image_size: int, patch_size: int, preprocessing: Preprocessing) -> None:
        """Raises ValueError where an encoder takes other images or patches."""
        channels, border = len(preprocessing.mean), preprocessing.border
        if channels != self.channels:
            raise ValueError(
                f"{self.name} holds images of {self.channels} channels; the encoder takes "
                f"{channels}"
            )
        there = self.attributes["image_size"], self.attributes["patch_size"]
        if there != (image_size, patch_size):
            raise ValueError(
                f"{self.name} holds patches of {there[1]} pixels, of images of {there[0]}; the "
                f"encoder takes patches of {patch_size}, of images of {image_size}"
            )
        if border != self.border:
            raise ValueError(
                f"{self.name} holds patches behind a border of {self.border} pixels; the encoder's "
                f"border is {border}"
            )

    def open(self, index: int) -> Image.Image:
        """Refuses: there is no whole image to decode.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"{self.name} holds the visible patches of images and nothing else: it can be encoded "
            "under the masks that it was made with, but not under others"
        )

    def open_with_missing(
        self, index: int, no_data: int | None = None
    ) -> tuple[Pixels, Bool[np.ndarray, "side side"]]:
        """The image with its visible patches in place; everything else is missing (black)."""
        channels = self.channels
        size, patch_size = self.attributes["image_size"], self.attributes["patch_size"]
        grid = size // patch_size
        try:
            row = int(self.rows[index])
            count = int(self._arrays["count"][row].read().result())
            keep = np.asarray(self._arrays["keep"][row, :count].read().result())
            patches = np.asarray(self._arrays["patches"][row, :count].read().result())
        except Exception as error:  # tensorstore raises many kinds for damaged files
            raise UnreadableImageError(f"cannot read {self.locate(index)}: {error}") from error
        whole = np.zeros((grid**2, patch_size, patch_size, channels), np.uint8)
        whole[keep] = patches.reshape(count, patch_size, patch_size, channels)
        missing = np.ones((grid**2, patch_size, patch_size), bool)
        missing[keep] = False
        image = whole.reshape(grid, grid, patch_size, patch_size, channels).swapaxes(1, 2)
        region = missing.reshape(grid, grid, patch_size, patch_size).swapaxes(1, 2)
        # The border is taken away, because the encoder's preprocessing puts it there again.
        image, region = (
            np.roll(a.reshape(size, size, *a.shape[4:]), (-self.border, -self.border), (0, 1))
            for a in (image, region)
        )
        return Image.fromarray(image) if channels == 3 else image, region

    @functools.cached_property
    def _arrays(self) -> dict[str, ts.TensorStore]:
        context = ts.Context(_CACHE)
        return {
            name: store.open_array(self.path, name, context=context, recheck_cached_data="open")
            for name in ("patches", "keep", "count")
        }


def load_masked(path: str, split: str, *, base: str | os.PathLike = "") -> MaskedImages:
    """One split of a data set of masked images.

    Args:
        path: what `experiments.mask_dataset` wrote.
        split: "train", "test" or "validation".
        base: what a relative path is relative to, by default the working directory.

    Raises:
        ValueError: `path` holds no such data set.
        DataError: it is not finished.
        StoreError: something of it is missing.
    """
    directory = base / pathlib.Path(path).expanduser() / split
    if not (directory / "zarr.json").is_file():
        raise ValueError(
            f"masked:PATH needs a directory written by experiments.mask_dataset, {directory} is not"
        )
    attributes = store.read_attributes(directory)
    if "skipped" not in attributes:
        raise DataError(f"{directory} is not finished; run experiments.mask_dataset again to go on")
    for name in ("patches", "keep", "count"):  # which are read image by image
        store.check_whole(directory, name)
    labels, ids = (store.read(directory, name) for name in ("label", "example_id"))
    rows = np.flatnonzero(labels >= 0)
    return MaskedImages(
        name=f"masked:{path}",
        split=split,
        class_names=tuple(attributes["class_names"]),
        keys=tuple(f"{split}/{row}" for row in rows),
        labels=labels[rows],
        path=directory,
        rows=rows,
        ids=ids[rows],
        attributes=attributes,
    )
