"""A map of a scene: its cells, and how it is written as GeoTIFFs."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jist.data.images.tiles import Grid
from jist.staging import replaced


@dataclasses.dataclass(frozen=True)
class SceneMap:
    """What every tile of a scene shows.

    Attributes:
        classes: the class of each tile [rows, columns], -1 where nothing is visible.
        probability: of that class, NaN where nothing is visible.
        grid: the tiles.
        missing_pixels: the share of the scene's pixels that is missing.
    """

    classes: Int[np.ndarray, "rows columns"]
    probability: Float[np.ndarray, "rows columns"]
    grid: Grid
    missing_pixels: float


def write_map(
    found: SceneMap,
    scene: Any,
    out: pathlib.Path,
    class_names: list[str],
    colours: list[tuple[float, float, float]],
) -> None:
    """Writes classes and probabilities, each file whole or not at all.

    Classes are bytes with a colour table, or 16 bits without where there are more than 255; the
    highest number is no data. A cell is the middle of a tile, one stride wide.

    Args:
        found: the map.
        scene: of rasterio, open: gives the georeference.
        out: file of the classes; that of the probabilities ends in `-probability.tif`.
        class_names: names of the classes, written as tags of the band.
        colours: of the classes, RGB in [0, 1].
    """
    import rasterio

    dtype, nothing = ("uint8", 255) if len(class_names) < 255 else ("uint16", 65535)
    stride, margin = found.grid.stride, (found.grid.tile - found.grid.stride) / 2
    a, b, c, d, e, f = tuple(scene.transform)[:6]
    left, top = c + (a + b) * margin, f + (d + e) * margin
    shape = {
        "driver": "GTiff",
        "count": 1,
        "height": found.grid.rows,
        "width": found.grid.columns,
        "crs": scene.crs,
        "transform": rasterio.Affine(a * stride, b * stride, left, d * stride, e * stride, top),
        "compress": "deflate",
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    table = {i: tuple(round(255 * part) for part in colour) for i, colour in enumerate(colours)}
    numbers = np.where(found.classes < 0, nothing, found.classes).astype(dtype)
    with (
        replaced(out) as staging,
        rasterio.open(staging, "w", dtype=dtype, nodata=nothing, **shape) as file,
    ):
        file.write(numbers, 1)
        file.set_band_description(1, "class")
        file.update_tags(1, **{str(label): name for label, name in enumerate(class_names)})
        if dtype == "uint8":
            file.write_colormap(1, table)
    with (
        replaced(out.with_name(f"{out.stem}-probability.tif")) as staging,
        rasterio.open(staging, "w", dtype="float32", nodata=np.nan, **shape) as file,
    ):
        file.write(found.probability, 1)
        file.set_band_description(1, "probability")
