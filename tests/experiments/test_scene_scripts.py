"""From scenes to tiles to a map of a scene, by the scripts."""

import json

import numpy as np
import pytest

from experiments import distributed, example_scenes, scene, tile
from experiments.command.errors import UsageError
from jist.data import DataError, load_dataset

rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
# rasterio 1.4 multiplies transforms as affine 3 would not.
pytestmark = pytest.mark.filterwarnings("ignore:Use .@. matmul:PendingDeprecationWarning")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    root = tmp_path_factory.mktemp("example")
    example_scenes.main(example_scenes.ExampleScenesOptions(out=root, scenes=2, side=256))
    return root


def tiled(example, out, **options):
    given = {"scenes": example / "scenes", "labels": example / "labels", "tile": 32}
    tile.main(tile.TileOptions(**(given | options), out=out))
    return out


def test_tiles_keep_values_names_place_and_class(example, tmp_path):
    out = tiled(example, tmp_path / "t", quality_band="SCL", most_missing=0.5)
    dataset = load_dataset(f"folder:{out}", "train")
    assert {*dataset.class_names} <= {"water", "forest", "crops", "soil", "town"}
    with (
        rasterio.open(example / "scenes" / "scene-0.tif") as whole,
        rasterio.open(example / "labels" / "scene-0.tif") as labels,
    ):
        names = {name: int(value) for value, name in labels.tags(1).items() if value.isdecimal()}
        found = sorted(out.glob("*/scene-0-*.tif"))
        assert found
        for path in found[::5]:
            row, column = (int(part) for part in path.stem.split("-")[-2:])
            with rasterio.open(path) as file:
                assert file.descriptions == whole.descriptions
                assert (file.crs, file.nodata) == (whole.crs, 0)
                left, top = file.bounds.left, file.bounds.top
                assert whole.index(left + 1, top - 1) == (row * 32, column * 32)
                window = whole.window(*file.bounds)
                np.testing.assert_array_equal(file.read(), whole.read(window=window))
                missing = np.isin(file.read(14), (0, 3, 8, 9, 10)).mean()
            assert missing <= 0.5
            assert (labels.read(1, window=window) == names[path.parent.name]).mean() >= 0.6


def test_0_is_a_class_where_it_has_a_name(example, tmp_path):
    """Beside the raster nothing is a class."""
    with rasterio.open(example / "scenes" / "scene-0.tif") as file:
        shape = {name: file.profile[name] for name in ("crs", "transform", "height", "width")}
    shape = {"driver": "GTiff", "count": 1, "dtype": "uint8"} | shape
    quarters = np.kron([[0, 1], [2, 7]], np.ones((128, 128), np.uint8)).astype(np.uint8)
    values, tags, narrow = (tmp_path / f"{name}.tif" for name in ("values", "tags", "narrow"))
    for path, nodata, rows in ((values, None, 256), (tags, 7, 256), (narrow, None, 128)):
        with rasterio.open(path, "w", **{**shape, "nodata": nodata, "height": rows}) as file:
            file.write(quarters[:rows], 1)
            if path == tags:
                file.update_tags(1, **{"0": "water", "1": "forest", "7": "nothing"})

    def counts(labels, *class_names):
        given = {"scenes": example / "scenes" / "scene-0.tif", "class_names": class_names}
        out = tmp_path / f"t{len([*tmp_path.iterdir()])}"
        tiled(example, out, labels=labels, most_missing=0.99, tile=64, **given)
        return {path.name: len([*path.iterdir()]) for path in out.iterdir()}

    assert counts(values, "0=water", "1=forest") == {"water": 4, "forest": 4}
    assert counts(values) == {"1": 4, "2": 4, "7": 4}
    assert counts(tags) == {"water": 4, "forest": 4}
    assert counts(tags, "0=sea", "2=town") == {"sea": 4, "town": 4}
    assert counts(narrow, "0=water", "1=forest") == {"water": 4, "forest": 4}
    with pytest.raises(UsageError, match=r"7 is the no-data value of .*tags\.tif, and no class"):
        counts(tags, "0=water", "7=town")


def test_polygons_in_degrees_label_tiles(example, tmp_path):
    from rasterio.warp import transform_geom

    with rasterio.open(example / "scenes" / "scene-0.tif") as file:
        left, bottom, right, top = file.bounds
        crs = file.crs
    middle = left + 1280
    features = []
    for name, (west, east) in {"a": (left, middle), "b": (middle, right)}.items():
        ring = [(west, bottom), (east, bottom), (east, top), (west, top), (west, bottom)]
        square = {"type": "Polygon", "coordinates": [ring]}
        geometry = transform_geom(crs, "OGC:CRS84", square)
        features.append({"type": "Feature", "properties": {"crop": name}, "geometry": geometry})
    path = tmp_path / "fields.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    given = {"scenes": example / "scenes" / "scene-0.tif", "labels": path}
    out = tiled(example, tmp_path / "t", **given, label_field="crop")
    assert {int(p.stem.split("-")[-1]) // 4 for p in (out / "a").iterdir()} == {0}
    assert {int(p.stem.split("-")[-1]) // 4 for p in (out / "b").iterdir()} == {1}
    with pytest.raises(DataError, match="a feature has no 'class'; --label-field"):
        tiled(example, tmp_path / "x", **given)
    assert not list(tmp_path.glob("*x*"))


def test_what_cannot_be_tiled_is_told_and_leaves_nothing(example, tmp_path):
    for given, error, said in (
        ({"test_scenes": ("scene-9.tif",)}, UsageError, "test_scenes must be some of the scenes"),
        ({"test_scenes": ("scene-0.tif", "scene-1.tif")}, UsageError, "not all"),
        ({"quality_band": "Q", "cloudy": "1"}, UsageError, "quality_band: .* no band 'Q'"),
        ({"class_names": ("1:water",)}, UsageError, "class_names must be as in 1=water"),
        ({"class_names": ("1=water",)}, DataError, r"tiles of \['water'\] alone"),
        ({"labels": example}, UsageError, r"holds no scene-0\.\*, the labels of"),
        ({"tile": 300}, DataError, "tiles of no class alone"),
    ):
        with pytest.raises(error, match=said):
            tiled(example, tmp_path / "t", **given)
    assert not list(tmp_path.iterdir())
    (tmp_path / "t").mkdir()
    with pytest.raises(UsageError, match="out=.* exists"):
        tiled(example, tmp_path / "t")


def test_a_map_has_the_scenes_place_its_classes_and_its_holes(example, tmp_path, capsys):
    out = tiled(example, tmp_path / "tiles", test_scenes=("scene-1.tif",), least_share=0.5)
    distributed.main(
        distributed.DistributedOptions(
            dataset=f"folder:{out}",
            encoder="random-nano",
            scale="0,8000",
            bands="B2,B4,B8,B11",
            quality_band="SCL",
            skip_empty=True,
            workers=1,
            epochs=30,
            hidden=(32,),
            run_dir=tmp_path / "r",
        )
    )
    path = example / "scenes" / "scene-1.tif"
    given = {"run_dir": tmp_path / "r", "scene": path, "tile": 32, "stride": 16}
    capsys.readouterr()
    scene.main(scene.SceneOptions(**given, out=tmp_path / "maps" / "m.tif"))
    assert "15 × 15 tiles" in capsys.readouterr().out
    with (
        rasterio.open(tmp_path / "maps" / "m.tif") as file,
        rasterio.open(tmp_path / "maps" / "m-probability.tif") as likely,
        rasterio.open(path) as whole,
        rasterio.open(example / "labels" / "scene-1.tif") as labels,
    ):
        classes, probability = file.read(1), likely.read(1)
        assert file.crs == likely.crs == whole.crs
        names = file.tags(1)
        quality, land = whole.read(14), labels.read(1)
        clouds, right = np.isin(quality, (0, 3, 8, 9, 10)), []
        true = {int(v): name for v, name in labels.tags(1).items() if v.isdecimal()}
        for (row, column), label in np.ndenumerate(classes):
            easting, northing = file.xy(row, column)
            y, x = whole.index(easting, northing)
            assert (y, x) == (16 * row + 16, 16 * column + 16)
            window = clouds[y - 16 : y + 16, x - 16 : x + 16]
            patches = window.reshape(8, 4, 8, 4).any(axis=(1, 3))
            assert (label == 255) == patches.all() == np.isnan(probability[row, column])
            if label != 255:
                right.append(names[str(label)] == true[land[y, x]])
        assert np.mean(right) > 0.5  # of five classes, by a random encoder, at borders too
        assert file.colormap(1)[0][:3] == (31, 119, 180)
    assert (tmp_path / "maps" / "m.png").stat().st_size > 5000
    labels_only = {**given, "scene": example / "labels" / "scene-1.tif"}
    with pytest.raises(UsageError, match=r"scene=.*scene-1\.tif has no band 'SCL'"):
        scene.main(scene.SceneOptions(**labels_only, out=tmp_path / "x.tif"))
    with pytest.raises(UsageError, match="out must end in .tif"):
        scene.main(scene.SceneOptions(**given, out=tmp_path / "x.png"))
    assert not list(tmp_path.glob("x*"))
