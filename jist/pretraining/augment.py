"""Random augmentation of images for pre-training, computed on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

# Ratio of width to height of a crop, as in the recipe of He et al.
ASPECT = (3 / 4, 4 / 3)


def random_view(
    key: PRNGKeyArray,
    image: UInt8[Array, "side side channels"],
    crop_area: tuple[float, float] = (0.2, 1.0),
    channels: int = 3,
    border: int = 0,
) -> Float[Array, "side side channels"]:
    """Crops an image at random, resizes the crop to the image's size, mirrors every second one.

    The augmentation of MAE pre-training (He et al., arXiv 2111.06377, Appendix A.1). The area of a
    crop is uniform, the logarithm of its aspect ratio too; a side that would be longer than the
    image is cut to it. Resizing is bicubic.

    Args:
        key: PRNG key.
        image: pixels [S, S, C], 0 to 255; or [S, S, C + 1], whose last channel is 0 where a pixel
            is missing.
        crop_area: least and largest area of a crop, as shares of the image.
        channels: channels C of the image.
        border: pixels above and to the left that are not of the image, and in no crop
            (`jist.models.Preprocessing.border`).

    Returns:
        Pixels [S, S, C], float32 in [0, 255]; or [S, S, C + 1], whose last channel is 0 where the
        filter mixed in a missing pixel, and else 255.

    Raises:
        ValueError: the shares do not satisfy 0 < least <= largest <= 1.
    """
    least, largest = crop_area
    if not 0 < least <= largest <= 1:
        raise ValueError(f"crop_area must satisfy 0 < least <= largest <= 1, got {crop_area}")
    shape, image = image.shape, image[border:, border:]
    side = image.shape[0]
    enlarged = shape[0] / side
    area_key, aspect_key, corner_key, mirror_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, minval=least, maxval=largest)
    aspect = jnp.exp(
        jax.random.uniform(aspect_key, minval=jnp.log(ASPECT[0]), maxval=jnp.log(ASPECT[1]))
    )
    # Height and width of the crop as shares of the image, and its upper left corner.
    shares = jnp.minimum(jnp.sqrt(area) * jnp.stack([1 / jnp.sqrt(aspect), jnp.sqrt(aspect)]), 1)
    corner = jax.random.uniform(corner_key, (2,)) * (1 - shares) * side

    def resized(image: Array, method: str) -> Array:
        return jax.image.scale_and_translate(
            image.astype(jnp.float32),
            (*shape[:2], image.shape[2]),
            (0, 1),
            scale=enlarged / shares,
            translation=-corner * enlarged / shares,
            method=method,
        )

    view = jnp.clip(resized(image[:, :, :channels], "cubic"), 0, 255)
    if image.shape[2] > channels:
        missing = resized(_grown(image[:, :, channels:] == 0), "linear")
        view = jnp.concatenate([view, 255.0 * (missing == 0)], axis=2)
    return jnp.where(jax.random.bernoulli(mirror_key), view[:, ::-1], view)


def _grown(missing: Bool[Array, "side side 1"]) -> Bool[Array, "side side 1"]:
    """Missing pixels and their neighbours.

    A bicubic filter that enlarges mixes pixels less than two pixels away. A linear filter, of reach
    one, finds the same pixels in the grown mask.
    """
    side = len(missing)
    padded = jnp.pad(missing, [(1, 1), (1, 1), (0, 0)])
    shifts = [padded[i : i + side, j : j + side] for i in range(3) for j in range(3)]
    return jnp.stack(shifts).any(axis=0)
