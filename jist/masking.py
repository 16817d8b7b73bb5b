"""Which patches of an image are kept.

A mask is always an argument of the encoder, never drawn inside it: `keep` lists the indices of the
visible patches, ascending, and the encoder drops the others before its first block. A *fixed* mask
of an image never changes; a *random* mask is drawn anew every epoch; a *natural* mask follows from
regions that are missing in the image itself (Kariotakis et al., CPAL 2024, §2.1).
"""

import dataclasses
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer, PRNGKeyArray

Pixels = TypeVar("Pixels", np.ndarray, Array)


def patches_kept(patches: int, ratio: float) -> int:
    """Number of visible patches K = int(patches * (1 - ratio)), truncated as in MAE.

    Raises:
        ValueError: `ratio` lies outside [0, 1), or is so large that no patch is left.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must lie in [0, 1), got {ratio}")
    kept = int(patches * (1 - ratio))
    if kept == 0:
        # Rounded down, so that the printed ratio does keep a patch.
        greatest = max(0, math.floor(1e4 * (1 - 1 / patches) - 1e-6)) / 1e4
        raise ValueError(
            f"ratio {ratio} keeps none of the {patches} patches; at most {greatest} keeps one"
        )
    return kept


def _smallest(noise: Array, kept: int) -> Array:
    return jnp.sort(jnp.argsort(noise, axis=-1)[..., :kept], axis=-1).astype(jnp.int32)


def random_keep(
    key: PRNGKeyArray, batch: int, patches: int, ratio: float
) -> Int[Array, "{batch} kept"]:
    """Draws for every image of a batch a uniformly random set of visible patches.

    Args:
        key: PRNG key; the same key gives the same masks.
        batch: number of images B.
        patches: number of patches L of an image.
        ratio: masking ratio r in [0, 1), the share of the patches that is removed.

    Returns:
        Indices of the kept patches [B, K], i32, ascending, K = int(L (1 - r)).

    Raises:
        ValueError: as `patches_kept`.
    """
    kept = patches_kept(patches, ratio)
    return _smallest(jax.random.uniform(key, (batch, patches)), kept)


def random_keep_of_visible(
    key: PRNGKeyArray, visible: Bool[Array, "batch patches"], ratio: float
) -> tuple[Int[Array, "batch kept"], Bool[Array, "batch kept"]]:
    """Draws like `random_keep`, for images of which some patches are missing.

    Of the v patches that an image has, int(v (1 - r)) are kept, but at least one. An image with all
    its patches keeps those that `random_keep` draws from the same key.

    Args:
        key: PRNG key; the same key gives the same masks.
        visible: which patches are there [B, L].
        ratio: masking ratio r in [0, 1), the share of these patches that is removed.

    Returns:
        Indices of the kept patches [B, K], i32, ascending, K = int(L (1 - r)), and [B, K] bool,
        False where an image keeps fewer and its row is padded with zeros.

    Raises:
        ValueError: as `patches_kept`.
    """
    patches = visible.shape[1]
    columns = patches_kept(patches, ratio)
    kept_of = np.array([max(min(v, 1), int(v * (1 - ratio))) for v in range(patches + 1)])
    noise = jax.random.uniform(key, visible.shape)
    order = jnp.argsort(jnp.where(visible, noise, jnp.inf), axis=1)[:, :columns]
    kept = jnp.arange(columns) < jnp.asarray(kept_of)[visible.sum(axis=1)][:, None]
    keep = jnp.sort(jnp.where(kept, order, patches), axis=1)  # padding last
    valid = keep < patches
    return jnp.where(valid, keep, 0).astype(jnp.int32), valid


def fixed_keep(
    seed: int,
    example_ids: Integer[Array | np.ndarray, " batch"],
    patches: int,
    ratio: float,
) -> Int[Array, "batch kept"]:
    """The fixed masks of some images: a function of (seed, example id) and nothing else.

    Neither batch size nor order nor the number of devices enters, so a mask can be drawn again
    anywhere. Masks of one image at two ratios are nested: what a larger ratio keeps, a smaller one
    keeps too.

    Args:
        seed: seed of the masks.
        example_ids: stable ids of the images [B], integers of at most 32 bits.
        patches: number of patches L of an image.
        ratio: masking ratio r in [0, 1).

    Returns:
        Indices of the kept patches [B, K], i32, ascending, K = int(L (1 - r)).

    Raises:
        ValueError: as `patches_kept`.
    """
    kept = patches_kept(patches, ratio)
    key = jax.random.key(seed)

    def noise(example_id: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, example_id), (patches,))

    return _smallest(jax.vmap(noise)(jnp.asarray(example_ids).astype(jnp.uint32)), kept)


@dataclasses.dataclass(frozen=True)
class FixedMask:
    """Fixed masks as a value: a callable from example ids to kept patches.

    Attributes:
        patches: number of patches L of an image.
        ratio: masking ratio r in [0, 1).
        seed: seed of the masks.

    Raises:
        ValueError: as `patches_kept`.
    """

    patches: int
    ratio: float
    seed: int = 0

    def __post_init__(self) -> None:
        patches_kept(self.patches, self.ratio)

    @property
    def name(self) -> str:
        """The name of these masks in results."""
        return "fixed"

    @property
    def kept(self) -> int:
        """Patches kept of every image, K = int(L (1 - r))."""
        return patches_kept(self.patches, self.ratio)

    def __call__(
        self, example_ids: Integer[Array | np.ndarray, " batch"]
    ) -> Int[Array, "batch kept"]:
        """The kept patches of some images, as `fixed_keep`."""
        return fixed_keep(self.seed, example_ids, self.patches, self.ratio)


def are_visible(missing: Pixels, patch_size: int, max_missing: float = 0.0) -> Pixels:
    """Which patches are visible; for arrays of NumPy or JAX.

    Args:
        missing: which pixels are missing [B, H, W], bool.
        patch_size: side of a patch in pixels; divides H and W.
        max_missing: share of a visible patch that may be missing, in [0, 1).

    Returns:
        [B, L] bool.

    Raises:
        ValueError: `max_missing` lies outside [0, 1), or `patch_size` does not divide the sides.
    """
    if not 0 <= max_missing < 1:
        raise ValueError(f"max_missing must lie in [0, 1), got {max_missing}")
    batch, height, width = missing.shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size must divide the sides of the images, got {patch_size} for "
            f"{height} × {width} pixels"
        )
    grid = batch, height // patch_size, patch_size, width // patch_size, patch_size
    cut: Any = missing.reshape(grid)  # JAX's type of a sum is not its type of an array
    share = cut.sum(axis=(2, 4)).reshape(batch, -1) / patch_size**2
    return share <= max_missing


def visible_patches(
    missing: Bool[np.ndarray, "batch height width"], patch_size: int, max_missing: float = 0.0
) -> tuple[Int[np.ndarray, "batch kept"], Bool[np.ndarray, "batch kept"]]:
    """The natural masks of some images: their visible patches.

    Args:
        missing: which pixels are missing [B, H, W].
        patch_size: as `are_visible`.
        max_missing: as `are_visible`.

    Returns:
        Indices of the visible patches [B, K], i32, ascending, K being the largest number in any
        image, and [B, K] bool, False where an image has fewer and its row is padded with zeros.

    Raises:
        ValueError: as `are_visible`.
    """
    visible = are_visible(missing, patch_size, max_missing)
    counts = visible.sum(axis=1)
    kept = counts.max(initial=0)
    keep = np.argsort(~visible, axis=1, kind="stable")[:, :kept]
    valid = np.arange(kept) < counts[:, None]
    return np.where(valid, keep, 0).astype(np.int32), valid
