"""The class of every pixel of a scene, from a raster or from polygons."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.command.errors import UsageError
from jist.data import DataError
from jist.data.images.rasters import opened

_WGS84 = "OGC:CRS84"  # of GeoJSON, RFC 7946
_VECTORS = (".geojson", ".json")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes on the map.

    Attributes:
        names: the name of each class by its value; what is not there is no class.
        read: from an open scene and a window of it, the values there [H, W].
    """

    names: Mapping[int, str]
    read: Callable[[Any, Any], np.ndarray]


def open_labels(
    given: pathlib.Path, scene: pathlib.Path, field: str, class_names: Sequence[str]
) -> Labels:
    """The labels of a scene.

    Args:
        given: a raster, a directory of rasters named like the scenes, or GeoJSON.
        scene: the scene.
        field: the property of GeoJSON that holds the class.
        class_names: VALUE=NAME, of rasters; 0 is a class where it has a name, here or in the
            raster's tags.

    Raises:
        UsageError: there is no such file, a name has no value or that of no data, or a file of
            another kind.
        DataError: the file cannot be used.
    """
    path = given
    if given.is_dir():
        beside = [p for p in sorted(given.iterdir()) if p.stem == scene.stem]
        if not beside:
            raise UsageError(f"labels={given} holds no {scene.stem}.*, the labels of {scene.name}")
        path = beside[0]
    if path.suffix.lower() in _VECTORS:
        return _polygons(path, field)
    if path.suffix.lower() in (".shp", ".gpkg", ".kml", ".fgb"):
        raise UsageError(
            f"labels={path}: polygons are read as GeoJSON: ogr2ogr labels.geojson {path.name}"
        )
    return _raster(path, class_names)


def _raster(path: pathlib.Path, class_names: Sequence[str]) -> Labels:
    with opened(path) as file:
        if np.dtype(file.dtypes[0]).kind not in "iu":
            raise DataError(f"{path} holds {file.dtypes[0]}: class values are whole numbers")
        tags, nodata = file.tags(1), file.nodata
        values = np.unique(file.read(1)) if not (class_names or _numbered(tags)) else ()
    names = _numbered(tags) or {int(value): str(value) for value in values}
    for text in class_names:
        value, equals, name = text.partition("=")
        if not equals or not value.strip().isdecimal() or not name.strip():
            raise UsageError(f"class_names must be as in 1=water 2=forest, got {text!r}")
        names[int(value)] = name.strip()
    if class_names:
        asked = {int(text.partition("=")[0]) for text in class_names}
        names = {value: name for value, name in names.items() if value in asked}
        if nodata in asked:
            raise UsageError(
                f"class_names: {nodata:g} is the no-data value of {path}, and no class; name others"
            )
    none = {nodata} if class_names or _numbered(tags) else {0, nodata}  # 0 that has a name counts

    def read(scene: Any, window: Any) -> np.ndarray:
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        with opened(path) as file:
            if (file.crs, file.transform, file.shape) == (scene.crs, scene.transform, scene.shape):
                return file.read(1, window=window)
            if file.crs is None or scene.crs is None:
                raise DataError(
                    f"{path} and {scene.name} have unlike grids, and one has no georeference"
                )
            # A window of the scene's grid; a warped file starts where it says.
            with WarpedVRT(
                file,
                crs=scene.crs,
                transform=scene.window_transform(window),
                width=window.width,
                height=window.height,
                resampling=Resampling.nearest,
                add_alpha=nodata is None,
            ) as warped:
                values = warped.read(1)
                if nodata is not None:
                    return values
                return np.where(warped.read(warped.count), values, np.int64(-1))  # no 0 beside it

    return Labels({v: _directory(n) for v, n in names.items() if v not in none}, read)


def _numbered(tags: Mapping[str, str]) -> dict[int, str]:
    return {int(value): name for value, name in tags.items() if value.isdecimal()}


def _polygons(path: pathlib.Path, field: str) -> Labels:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        features = [f for f in found["features"] if f["geometry"]]
        crs = found.get("crs", {"properties": {"name": _WGS84}})["properties"]["name"]
        classes = [f["properties"][field] for f in features]
    except OSError as error:
        raise UsageError(f"labels={path}: {error.strerror}") from None
    except KeyError as error:
        raise DataError(
            f"{path}: a feature has no {error}; --label-field names a property"
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no GeoJSON of polygons: {error}") from None
    if not any(name is not None for name in classes):
        raise DataError(f"{path} holds no polygon with a class in {field!r}")
    names = sorted({str(name) for name in classes if name is not None})
    values = {name: value for value, name in enumerate(names, 1)}
    shapes = [
        (feature["geometry"], values[str(name)])
        for feature, name in zip(features, classes, strict=True)
        if name is not None
    ]

    @functools.cache
    def placed(where: str) -> list[tuple[Any, int]]:
        from rasterio.warp import transform_geom

        geometries, numbers = zip(*shapes, strict=True)
        return list(zip(transform_geom(crs, where, list(geometries)), numbers, strict=True))

    def read(scene: Any, window: Any) -> np.ndarray:
        from rasterio.features import rasterize

        if scene.crs is None:
            raise DataError(f"{scene.name} has no georeference: polygons have no place in it")
        return rasterize(
            placed(scene.crs.to_wkt()),
            out_shape=(window.height, window.width),
            transform=scene.window_transform(window),
            dtype="int32",
        )

    return Labels({value: _directory(name) for name, value in values.items()}, read)


def _directory(name: str) -> str:
    """A class as the name of a directory."""
    return name.replace("/", "_").strip(". ") or "unnamed"
