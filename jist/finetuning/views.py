"""Random views of a masked image, computed on the device in training mode."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from jist.pretraining.augment import random_view


@dataclasses.dataclass(frozen=True)
class Cropped:
    """A random crop at the image's size, mirrored every second time (`random_view`).

    For masks that are drawn anew every epoch: they hide patches of the view. A fixed mask hides
    patches of the image, and a crop of the image would show what it hides.

    Attributes:
        least_area: least area of a crop, as a share of the image, in (0, 1].
        border: as of `random_view`.
    """

    least_area: float = 0.6
    border: int = 0

    def __call__(
        self,
        key: PRNGKeyArray,
        image: UInt8[Array, "side side channels"],
        keep: Int[Array, " kept"],
    ) -> tuple[Float[Array, "side side channels"], Int[Array, " kept"]]:
        """The view [S, S, C], in [0, 255], and the patches that are visible of it."""
        area = self.least_area, 1.0
        return random_view(key, image, area, image.shape[2], self.border), keep


@dataclasses.dataclass(frozen=True)
class Mirrored:
    """The image and its mask, mirrored every second time: no pixel is shown that is hidden.

    Attributes:
        grid: patches along a side of the image.
    """

    grid: int

    def __call__(
        self,
        key: PRNGKeyArray,
        image: UInt8[Array, "side side channels"],
        keep: Int[Array, " kept"],
    ) -> tuple[Float[Array, "side side channels"], Int[Array, " kept"]]:
        """The view [S, S, C] and its visible patches, in any order."""
        pixels = image.astype(jnp.float32)
        row, column = jnp.divmod(keep, self.grid)
        other = row * self.grid + self.grid - 1 - column
        mirror = jax.random.bernoulli(key)
        return jnp.where(mirror, pixels[:, ::-1], pixels), jnp.where(mirror, other, keep)
