"""Images with their visible patches, under fixed or natural masks."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from jist.data import Dataset, EmptyImageError, NaturalMasks, UnreadableImageError, batches
from jist.masking import visible_patches
from jist.models import MAEEncoder

UNREADABLE = -1  # label of an image that cannot be decoded
EMPTY = -2  # label of an image of which nothing is visible
NO_PATCH = -1  # in `keep`, after the last visible patch

KeepFor = Callable[[Array], Int[Array, "batch kept"]]


@dataclasses.dataclass(frozen=True)
class Visible:
    """A batch of images and their visible patches.

    Attributes:
        images: [B, S, S, C] uint8.
        keep: indices of the visible patches [B, K], ascending, each row ending with `NO_PATCH`
            where it has fewer.
        labels: [B] int32, or `UNREADABLE` or `EMPTY`.
        example_ids: [B] uint32.
        missing: share of each image's pixels that is missing [B]; None under fixed masks.
    """

    images: UInt8[np.ndarray, "batch side side channels"]
    keep: Int[np.ndarray, "batch kept"]
    labels: Int[np.ndarray, " batch"]
    example_ids: UInt32[np.ndarray, " batch"]
    missing: Float[np.ndarray, " batch"] | None = None

    @property
    def counts(self) -> Int[np.ndarray, " batch"]:
        """Visible patches of each image [B]."""
        return (self.keep != NO_PATCH).sum(axis=1)


def visible_batches(
    dataset: Dataset,
    masks: KeepFor | NaturalMasks,
    encoder: MAEEncoder,
    *,
    rows: Sequence[int],
    batch_size: int,
    chunk: int | None = None,
    skip_unreadable: bool = False,
    skip_empty: bool = False,
) -> Iterator[Visible]:
    """Decodes images for an encoder, and finds the visible patches of each.

    Args:
        dataset: the images.
        masks: as `jist.features.extract`.
        encoder: gives image size, patch size and resizing.
        rows: which images, in this order.
        batch_size: images of a batch; the last, and the last of a chunk, may have fewer.
        chunk: batches begin anew after so many rows.
        skip_unreadable: mark images that cannot be decoded instead of stopping at the first.
        skip_empty: the same for images without a visible patch.

    Raises:
        UnreadableImageError: an image cannot be decoded.
        EmptyImageError: nothing of an image is visible.
    """
    natural = masks if isinstance(masks, NaturalMasks) else None
    start = 0
    for batch in batches(
        dataset,
        image_size=encoder.config.image_size,
        preprocessing=encoder.preprocessing,
        batch_size=batch_size,
        rows=rows,
        chunk=chunk,
        skip_unreadable=skip_unreadable,
        natural=natural,
    ):
        labels = batch.labels
        if isinstance(masks, NaturalMasks):
            assert batch.missing is not None
            keep = natural_keep(batch.missing, encoder.config.patch_size, masks.max_missing)
            labels = np.where(batch.readable & (keep[:, 0] == NO_PATCH), EMPTY, labels)
        else:
            keep = np.asarray(_keep(masks, batch.example_ids))
            keep = np.where(batch.readable[:, None], keep, NO_PATCH)
        empty = np.flatnonzero(labels == EMPTY)
        if len(empty) and not skip_empty:
            raise nothing_visible(dataset.locate(rows[start + int(empty[0])]))
        share = None if batch.missing is None else batch.missing.mean(axis=(1, 2))
        yield Visible(batch.images, keep, labels.astype(np.int32), batch.example_ids, share)
        start += len(labels)


def natural_keep(
    missing: Bool[np.ndarray, "batch side side"], patch_size: int, max_missing: float
) -> Int[np.ndarray, "batch patches"]:
    """As `jist.masking.visible_patches`, with a column for every patch and padded by `NO_PATCH`."""
    keep = np.full((len(missing), (missing.shape[1] // patch_size) ** 2), NO_PATCH, np.int32)
    found, valid = visible_patches(missing, patch_size, max_missing)
    keep[:, : found.shape[1]] = np.where(valid, found, NO_PATCH)
    return keep


def left_out(
    dataset: Dataset,
    labels: Int[np.ndarray, " examples"],
    *,
    skip_unreadable: bool,
    skip_empty: bool,
) -> dict[str, list[str]]:
    """Which images of a data set were left out, to be noted.

    Args:
        dataset: the images.
        labels: the stored labels [N], `UNREADABLE` and `EMPTY` among them.
        skip_unreadable: whether images that cannot be decoded may be left out.
        skip_empty: whether images without a visible patch may be left out.

    Returns:
        {"skipped": [...], "empty": [...]}, those that cannot be decoded and those without a patch.

    Raises:
        UnreadableImageError: an earlier call left one out, and this one does not allow it.
        EmptyImageError: likewise, for images without a visible patch.
    """
    noted = {
        name: [dataset.locate(int(row)) for row in np.flatnonzero(labels == mark)]
        for name, mark in (("skipped", UNREADABLE), ("empty", EMPTY))
    }
    if noted["skipped"] and not skip_unreadable:
        raise UnreadableImageError(
            f"image {noted['skipped'][0]} could not be decoded and was left out before; "
            "--skip-unreadable leaves such images out"
        )
    if noted["empty"] and not skip_empty:
        raise nothing_visible(noted["empty"][0])
    return noted


def nothing_visible(
    image: str, advice: str = "--skip-empty leaves such images out"
) -> EmptyImageError:
    """The error for an image without a visible patch, with advice."""
    return EmptyImageError(
        f"nothing of image {image} is visible: every patch lacks more of its pixels "
        f"than --max-missing allows; {advice}"
    )


def _keep(keep_for: KeepFor, example_ids: np.ndarray) -> Array:
    return jax.jit(keep_for)(jnp.asarray(example_ids))
