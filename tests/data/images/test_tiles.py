"""Tiles of a scene, read strip by strip: the same as cut out of the whole."""

import numpy as np
import pytest

from jist.data.images import tiles
from jist.data.images.bands import SENTINEL2_SCL, Bands
from jist.data.images.rasters import opened
from jist.data.images.synthetic_scenes import BANDS, CLASSES, synthetic_scene
from jist.data.images.tiles import Grid, strips

rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
# rasterio 1.4 multiplies transforms as affine 3 would not.
pytestmark = pytest.mark.filterwarnings("ignore:Use .@. matmul:PendingDeprecationWarning")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = synthetic_scene(0, 100)
    path = tmp_path_factory.mktemp("scene") / "s.tif"
    shape = {"width": 90, "height": 100, "count": 14, "dtype": "uint16"}
    transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    with rasterio.open(path, "w", "GTiff", nodata=0, transform=transform, **shape) as file:
        file.write(made.bands[:, :, :90], list(range(1, 14)))
        file.write(made.quality[:, :90], 14)
        file.descriptions = (*BANDS, "SCL")
    return path


@pytest.mark.parametrize("at_once", [1, 10**9])
@pytest.mark.parametrize(("tile", "stride"), [(32, 32), (32, 10), (100, 40), (128, 128)])
def test_strips_hold_what_the_whole_scene_holds(scene, monkeypatch, tile, stride, at_once):
    monkeypatch.setattr(tiles, "STRIP_BYTES", at_once)
    monkeypatch.setattr(tiles, "_COLUMNS", 37)
    bands = Bands(("B4", "B8"), ((0, 10_000),), SENTINEL2_SCL)
    pixels, missing = bands.read(scene)
    beyond = [(0, 2 * tile), (0, 2 * tile)]
    pixels = np.pad(pixels, [*beyond, (0, 0)])
    missing = np.pad(missing, beyond, constant_values=True)
    grid, seen, counted = Grid(100, 90, tile, stride), {}, 0
    with opened(scene) as file:
        for strip in strips(file, bands, grid):
            counted += strip.missing_pixels()
            assert at_once > 1 or strip.rows == 1
            seen |= {(row, column): found for row, column, *found in strip.tiles()}
    assert counted == missing[:100, :90].sum()
    for row in range(grid.rows):
        for column in range(grid.columns):
            place = np.s_[row * stride :, column * stride :]
            wanted = pixels[place][:tile, :tile], missing[place][:tile, :tile]
            if wanted[1].all():
                assert (row, column) not in seen
            else:
                np.testing.assert_array_equal(seen[row, column][0], wanted[0])
                np.testing.assert_array_equal(seen[row, column][1], wanted[1])
    assert (grid.rows - 1) * stride + tile >= 100 > (grid.rows - 2) * stride + tile


def test_a_grid_leaves_no_gap():
    with pytest.raises(ValueError, match="stride must be at most the tile.* got 3 with tiles of 2"):
        Grid(9, 9, 2, 3)
    with pytest.raises(ValueError, match="tile must be at least 1 pixel, got 0"):
        Grid(9, 9, 0, 1)
    assert Grid(2, 2, 5, 5).rows == 1


def test_synthetic_scenes_have_every_class_and_every_kind_of_hole():
    scene, again = (synthetic_scene(1, 128) for _ in range(2))
    np.testing.assert_array_equal(scene.bands, again.bands)
    assert {*np.unique(scene.land)} == {*range(len(CLASSES))}
    assert {0, 3, 8, 9} < {*np.unique(scene.quality)}
    np.testing.assert_array_equal(scene.quality == 0, (scene.bands == 0).any(axis=0))
    assert not np.isin(synthetic_scene(1, 128, cover=0.0).quality, (3, 8, 9)).any()
    with pytest.raises(ValueError, match="side must be at least 64"):
        synthetic_scene(0, 32)
    with pytest.raises(ValueError, match="cover must lie in"):
        synthetic_scene(0, 64, 1.0)
