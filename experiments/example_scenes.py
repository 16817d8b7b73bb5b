r"""Scenes of 13 bands with clouds, shadows and no data, as GeoTIFFs: invented, to try the rest.

    python -m experiments.example_scenes --out data/example
    python -m experiments.tile --scenes data/example/scenes --labels data/example/labels \
        --tile 32 --quality-band SCL --test-scenes scene-3.tif --out data/tiles

Writes `scenes/scene-0.tif` and so on: the bands of Sentinel-2 by name, 16 bits in units of
1/10,000, no data as 0, a scene classification as the band SCL, in UTM with pixels of 10 metres; and
`labels/scene-0.tif` with the class of every pixel, from 1. Nothing in them was measured. The same
seed writes the same files. Needs `pip install -e '.[geo]'`. Expected: 2 seconds a scene.
"""

import dataclasses
import pathlib

from experiments.command.cli import Options, run
from jist.data.images.rasters import load_rasterio
from jist.data.images.synthetic_scenes import BANDS, CLASSES, synthetic_scene

_CORNER, _PIXEL = (600_000.0, 4_200_000.0), 10.0  # in metres of EPSG:32634


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleScenesOptions(Options):
    """Options of the example scenes."""

    out: pathlib.Path = pathlib.Path("data/example")
    """The directory of `scenes/` and `labels/`."""
    scenes: int = 4
    """Number of scenes."""
    side: int = 768
    """Pixels of a side, at least 64."""
    cover: float = 0.25
    """Share of the pixels under clouds, in [0, 1)."""
    seed: int = 0
    """Decides land, clouds and light."""


def main(options: ExampleScenesOptions) -> None:
    """Writes the scenes, beside each other on the map."""
    rasterio = load_rasterio("experiments.example_scenes")
    for directory in ("scenes", "labels"):
        (options.out / directory).mkdir(parents=True, exist_ok=True)
    for number in range(options.scenes):
        scene = synthetic_scene(options.seed * 1000 + number, options.side, options.cover)
        left, top = _CORNER[0] + number * options.side * _PIXEL, _CORNER[1]
        shape = {
            "driver": "GTiff",
            "width": options.side,
            "height": options.side,
            "crs": "EPSG:32634",
            "transform": rasterio.Affine(_PIXEL, 0, left, 0, -_PIXEL, top),
            "compress": "deflate",
            "nodata": 0,
        }
        name = f"scene-{number}.tif"
        tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256}
        count = len(BANDS) + 1
        with rasterio.open(
            options.out / "scenes" / name, "w", count=count, dtype="uint16", **tiles, **shape
        ) as file:
            file.write(scene.bands, list(range(1, count)))
            file.write(scene.quality, count)
            file.descriptions = (*BANDS, "SCL")
            file.update_tags(note="invented by experiments.example_scenes, not measured")
        with rasterio.open(
            options.out / "labels" / name, "w", count=1, dtype="uint8", **shape
        ) as file:
            file.write(scene.land + 1, 1)
            file.update_tags(1, **{str(i): of for i, of in enumerate(CLASSES, 1)})
        print(f"written: {options.out / 'scenes' / name}")
    named = ", ".join(f"{value} {name}" for value, name in enumerate(CLASSES, 1))
    print(f"labels: {named}")


if __name__ == "__main__":
    run(main, ExampleScenesOptions, __doc__ or "")
