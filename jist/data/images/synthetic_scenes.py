"""Scenes that look to a program as Sentinel-2's do: invented land, clouds, shadows, no data.

Nothing here was measured: reflectances are round numbers in the order of magnitude of the land
cover they are named after. They serve examples and tests.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16
from PIL import Image

BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
CLASSES = ("water", "forest", "crops", "soil", "town")
# Reflectances in 1/10,000, class by class.
SPECTRA = np.array(
    [
        [600, 500, 400, 300, 280, 250, 250, 220, 200, 150, 10, 100, 80],
        [350, 300, 450, 280, 800, 2000, 2500, 2700, 2900, 900, 15, 1300, 600],
        [400, 450, 800, 500, 1300, 3000, 3600, 3800, 4000, 1200, 15, 2000, 1100],
        [900, 1100, 1500, 2000, 2200, 2400, 2500, 2600, 2700, 900, 15, 3500, 3000],
        [1200, 1400, 1600, 1800, 1900, 2000, 2050, 2100, 2150, 800, 20, 2400, 2200],
    ],
    np.float32,
)
# Values of the scene classification, as in products of level 2A.
_SCL = np.array([6, 4, 4, 5, 5], np.uint8)
_NO_DATA, _SHADOW, _THIN, _CLOUD = 0, 3, 8, 9
_CLOUD_REFLECTANCE = 7000.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """One scene of S × S pixels.

    Attributes:
        bands: reflectances in 1/10,000, at least 1 and 0 where there is no data [13, S, S].
        quality: the scene classification (SCL) [S, S].
        land: the class of the ground, also under clouds: indices into `CLASSES` [S, S].
    """

    bands: UInt16[np.ndarray, "13 side side"]
    quality: UInt8[np.ndarray, "side side"]
    land: UInt8[np.ndarray, "side side"]


def synthetic_scene(seed: int, side: int, cover: float = 0.25) -> Scene:
    """A scene: a function of its arguments alone.

    Args:
        seed: decides land, clouds and light.
        side: pixels S of a side, at least 64.
        cover: share of the pixels under clouds, in [0, 1).

    Raises:
        ValueError: a side or a cover outside these.
    """
    if side < 64:
        raise ValueError(f"side must be at least 64 pixels, got {side}")
    if not 0 <= cover < 1:
        raise ValueError(f"cover must lie in [0, 1), got {cover}")
    generator = np.random.default_rng([seed, 0x5C])
    land = _land(generator, side)
    light = generator.uniform(0.85, 1.15) * (1 + 0.15 * _texture(generator, land))
    clouds = _smooth(generator, side, 4)
    cloudy = clouds > np.quantile(clouds, 1 - cover) if cover else np.zeros((side, side), bool)
    opaque = clouds > np.quantile(clouds, 1 - cover / 2) if cover else cloudy
    shadow = np.roll(cloudy, (side // 32, side // 24), axis=(0, 1)) & ~cloudy
    gone = _beyond_the_swath(generator, side)
    bands = np.empty((len(BANDS), side, side), np.uint16)
    for band, reflectances in enumerate(SPECTRA.T):
        found = reflectances[land] * light * np.where(shadow, 0.35, 1.0)
        found = np.where(cloudy, 0.4 * found + 0.6 * _CLOUD_REFLECTANCE, found)
        found = np.where(opaque, _CLOUD_REFLECTANCE, found)
        found += generator.normal(0, 60, found.shape)
        bands[band] = np.where(gone, 0, np.clip(found, 1, 16000))
    quality = _SCL[land]
    for value, where in (
        (_SHADOW, shadow),
        (_THIN, cloudy),
        (_CLOUD, opaque),
        (_NO_DATA, gone),
    ):
        quality[where] = value
    return Scene(bands, quality, land)


def _land(generator: np.random.Generator, side: int) -> UInt8[np.ndarray, "side side"]:
    """Water and forest in the low and the high places, and fields and towns between."""
    height, kind = _smooth(generator, side, 3), _smooth(generator, side, 6)
    land = np.where(kind > np.quantile(kind, 0.6), 2, 3)
    land = np.where(kind < np.quantile(kind, 0.2), 4, land)
    land = np.where(height > np.quantile(height, 0.7), 1, land)
    return np.where(height < np.quantile(height, 0.25), 0, land).astype(np.uint8)


def _texture(
    generator: np.random.Generator, land: UInt8[np.ndarray, "side side"]
) -> Float[np.ndarray, "side side"]:
    """What makes a class rough: crowns of trees, rows of crops, blocks of houses."""
    side = len(land)
    rows = np.sin(np.arange(side) * generator.uniform(0.6, 1.4))[:, None] * np.ones(side)
    blocks = np.kron(generator.normal(0, 1, (-(-side // 4),) * 2), np.ones((4, 4)))[:side, :side]
    crowns = generator.normal(0, 1, land.shape)
    calm = 0.1 * generator.normal(0, 1, land.shape)
    return np.choose(land, [calm, crowns, rows, 2 * calm, 1.5 * blocks])


def _smooth(
    generator: np.random.Generator, side: int, cells: int
) -> Float[np.ndarray, "side side"]:
    """Fractional noise, as that of `jist.data.images.clouds`."""
    height, weight = np.zeros((side, side), np.float32), 1.0
    while cells <= side // 4:
        grid = generator.standard_normal((cells + 1, cells + 1), np.float32)
        drawn = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        height += weight * np.asarray(drawn)
        cells, weight = 2 * cells, weight / 2
    return height


def _beyond_the_swath(generator: np.random.Generator, side: int) -> Bool[np.ndarray, "side side"]:
    """A corner that the satellite did not see."""
    rows, columns = np.ogrid[:side, :side]
    return rows + generator.uniform(1.5, 3) * columns < generator.uniform(0.1, 0.4) * side
