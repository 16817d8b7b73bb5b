"""Simulated clouds: masks in the shape of clouds, for data sets that come without any.

Fractional Brownian noise: grids of random heights, each twice as fine as the one before and
counting half as much, are drawn smooth and added; where the sum is highest there is cloud
(Fournier, Fussell, Carpenter, Computer Rendering of Stochastic Models, 1982).
"""

import numpy as np
from jaxtyping import Bool
from PIL import Image

_COARSEST = 2  # cells along a side of the first grid: clouds of up to half the image


def cloud_mask(
    seed: int, example_id: int, size: int, cover: float
) -> Bool[np.ndarray, "{size} {size}"]:
    """The clouds over one image: a function of (seed, example id, size) and the cover.

    Exactly round(cover · S²) pixels are covered. For one image, a larger cover hides everything
    that a smaller one hides.

    Args:
        seed: seed of the clouds.
        example_id: stable id of the image.
        size: pixels S of a side.
        cover: share of the pixels that are hidden, in (0, 1).

    Returns:
        True where there is cloud [S, S].

    Raises:
        ValueError: `cover` lies outside (0, 1).
    """
    if not 0 < cover < 1:
        raise ValueError(f"cover must lie in (0, 1), got {cover}")
    generator = np.random.default_rng([seed, example_id])
    height = np.zeros((size, size), np.float32)
    cells, weight = _COARSEST, 1.0
    while cells <= size:
        grid = generator.standard_normal((cells + 1, cells + 1), np.float32)
        drawn = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        height += weight * np.asarray(drawn)
        cells, weight = 2 * cells, weight / 2
    hidden = np.zeros(size * size, bool)
    hidden[np.argsort(-height, axis=None, kind="stable")[: round(cover * size * size)]] = True
    return hidden.reshape(size, size)
