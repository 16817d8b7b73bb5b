r"""A training set of tiles, cut out of scenes and labelled by a map: one directory per class.

    python -m experiments.tile --scenes data/example/scenes --labels data/example/labels \
        --tile 32 --quality-band SCL --test-scenes scene-3.tif --out data/tiles

    python -m experiments.tile --scenes scenes/ --labels parcels.geojson --label-field crop \
        --out data/parcels

Scenes are GeoTIFFs, or other files that GDAL reads. Labels are a raster of class values (brought to
the scene's grid; its no-data value and a 0 without a name are no class), a directory of such
rasters named like the scenes, or GeoJSON polygons with the class in a property. A tile has the
class of most of its pixels, if at least `--least-share` of them have it. Tiles keep all bands,
values and the georeference; clouds and missing data are left to training, and count here only where
hardly anything can be seen. `--test-scenes` names scenes whose tiles go to `test/`: without it
training draws test tiles from all scenes, where they lie beside training tiles and look alike.
Nothing is written until all is done. Needs `pip install -e '.[geo]'`. Expected: a minute for 10,000
tiles.
"""

import dataclasses
import pathlib
import shutil
import tempfile
from collections import Counter
from typing import Any

import numpy as np

from experiments.command.bands import parse_quality
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.land_cover import Labels, open_labels
from jist.data import DataError
from jist.data.images.bands import Bands
from jist.data.images.decoding import IMAGE_SUFFIXES
from jist.data.images.rasters import load_rasterio, opened


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileOptions(Options):
    """Options of tiling."""

    scenes: pathlib.Path
    """A scene, or a directory of scenes."""
    labels: pathlib.Path
    """The labels: a raster, a directory of rasters named like the scenes, or GeoJSON polygons."""
    out: pathlib.Path
    """The directory to write; it must not exist."""
    label_field: str = "class"
    """GeoJSON: the property that holds the class."""
    class_names: tuple[str, ...] = ()
    """Rasters: names of class values, as in 1=water 2=forest; by default the raster's own tags,
    else the values themselves."""
    tile: int = 64
    """Pixels of a tile's side."""
    stride: int | None = None
    """Pixels from one tile to the next; by default the tile: none overlap."""
    least_share: float = 0.6
    """Least share of a tile's pixels that have its class, in (0, 1]."""
    quality_band: str | None = None
    """The band, by number or name, that says which pixels are clouds and the like; SCL (Sentinel-2)
    and QA_PIXEL (Landsat) are known."""
    cloudy: str | None = None
    """The values of --quality-band that are missing pixels, as in 3,8,9,10; or SCL or QA_PIXEL for
    a band of that kind under another name."""
    most_missing: float = 0.9
    """Tiles of which more is missing than this share are left out, in [0, 1)."""
    test_scenes: tuple[str, ...] = ()
    """File names of the scenes whose tiles are test/; the others are then train/."""


def main(options: TileOptions) -> None:
    """Cuts all scenes, and moves the directory into place."""
    rasterio = load_rasterio("experiments.tile")
    if options.out.exists():
        raise UsageError(f"out={options.out} exists: tiles are written to a new directory")
    paths = scene_paths(options.scenes)
    unknown = {*options.test_scenes} - {path.name for path in paths}
    if unknown or len(options.test_scenes) >= len(paths):
        raise UsageError(
            f"test_scenes must be some of the scenes, not all, got {[*options.test_scenes]}; "
            f"there are {[path.name for path in paths][:10]}"
        )
    found: Counter[tuple[str, str]] = Counter()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{options.out.name}.", dir=options.out.parent))
    try:
        for path in paths:
            split = "test" if path.name in options.test_scenes else "train"
            split = split if options.test_scenes else ""
            labels = open_labels(options.labels, path, options.label_field, options.class_names)
            with opened(path) as file, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                counts = cut(file, path, labels, staging / split, options)
            said = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            print(f"{path.name}: {said or 'no tile'}")
            found.update({(split, name): count for name, count in counts.items()})
        check(found)
        staging.chmod(0o755)
        staging.rename(options.out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(
        f"written: {options.out}, {found.total()} tiles of {options.tile} × {options.tile} pixels"
    )
    if not options.test_scenes:
        print(
            "note: test tiles will be drawn from the same scenes as training tiles; --test-scenes "
            "keeps whole scenes apart"
        )


def scene_paths(given: pathlib.Path) -> list[pathlib.Path]:
    """The scenes, in the order of their names.

    Raises:
        UsageError: there is none, or two have one name but for the suffix.
    """
    paths = [given]
    if given.is_dir():
        inside = sorted(path for path in given.iterdir() if not path.name.startswith("."))
        suffixes = {*IMAGE_SUFFIXES, ".vrt", ".img"}
        paths = [path for path in inside if path.suffix.lower() in suffixes]
    if not paths or len({path.stem for path in paths}) < len(paths):
        raise UsageError(f"scenes={given} must hold scenes (.tif, .jp2, .vrt, ...) of unlike names")
    return paths


def cut(
    file: Any, path: pathlib.Path, labels: Labels, out: pathlib.Path, options: TileOptions
) -> Counter[str]:
    """Writes the tiles of one scene: `CLASS/SCENE-ROW-COLUMN.tif`; how many of each class."""
    from rasterio.windows import Window

    stride = options.stride or options.tile
    seen = Bands((1,), ((0, 1),), parse_quality(options.quality_band, options.cloudy))
    counts: Counter[str] = Counter()
    for row in range((file.height - options.tile) // stride + 1):
        strip = Window(0, row * stride, file.width, options.tile)  # pyright: ignore[reportCallIssue]
        values = labels.read(file, strip)
        for column in range((file.width - options.tile) // stride + 1):
            left = column * stride
            name = majority(values[:, left : left + options.tile], labels, options.least_share)
            if name is None:
                continue
            window = Window(left, row * stride, options.tile, options.tile)  # pyright: ignore[reportCallIssue]
            try:
                missing = seen.stored(file, window)[1]
            except LookupError as error:
                raise UsageError(f"quality_band: {path} has {error.args[0]}") from None
            if missing.mean() > options.most_missing:
                continue
            place = out / name / f"{path.stem}-{row}-{column}.tif"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_tile(file, window, place)
            counts[name] += 1
    return counts


def majority(values: np.ndarray, labels: Labels, least: float) -> str | None:
    """The class of most pixels, if they are enough and it is one."""
    found, counts = np.unique(values, return_counts=True)
    best = int(np.argmax(counts))
    name = labels.names.get(int(found[best]))
    return name if counts[best] >= least * values.size else None


def write_tile(file: Any, window: Any, place: pathlib.Path) -> None:
    """A window of a scene as a GeoTIFF: bands, descriptions, what is missing, georeference."""
    import rasterio
    from rasterio.enums import MaskFlags

    shape = {
        "driver": "GTiff",
        "width": window.width,
        "height": window.height,
        "count": file.count,
        "dtype": np.result_type(*file.dtypes),
        "nodata": file.nodata,
        "crs": file.crs,
        "transform": file.window_transform(window),
        "compress": "deflate",
    }
    with rasterio.open(place, "w", **shape) as tile:
        tile.write(file.read(window=window))
        tile.colorinterp = file.colorinterp
        tile.descriptions = file.descriptions
        if all(flags == [MaskFlags.per_dataset] for flags in file.mask_flag_enums):
            tile.write_mask(file.dataset_mask(window=window))


def check(found: Counter[tuple[str, str]]) -> None:
    """Refuses what no training could use.

    Raises:
        DataError: there are fewer than two classes, or train/ and test/ have unlike ones.
    """
    splits = {split: {name for of, name in found if of == split} for split, _ in found}
    if not splits or min(map(len, splits.values())) < 2:
        raise DataError(
            f"tiles of {sorted({name for _, name in found}) or 'no class'} alone: a classifier "
            "needs two classes; a smaller --tile or --least-share finds more"
        )
    first, *others = splits.values()
    for other in others:
        if first != other:
            raise DataError(
                f"only one of train/ and test/ has tiles of {sorted(first ^ other)}: choose other "
                "--test-scenes"
            )


if __name__ == "__main__":
    run(main, TileOptions, __doc__ or "")
