"""Bands of GeoTIFFs and what is missing of them, as rasterio writes such files."""

import dataclasses

import numpy as np
import pytest
from PIL import ExifTags, Image

from jist.data import UnreadableImageError, read_image
from jist.data.images.bands import LANDSAT_QA_PIXEL, SENTINEL2_SCL, Bands, Quality, read_bands

rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
SCALE = (0, 10_000)
REFLECTANCES = np.random.default_rng(0).integers(1, 12_000, (4, 6, 5))


def write(path, bands, names=None, **options):
    count, height, width = bands.shape
    transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **shape, **options) as file:
        file.write(bands)
        file.descriptions = names or [None] * count
    return path


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_bands_by_number_or_name_in_any_type(tmp_path, dtype):
    path = write(tmp_path / "s.tif", REFLECTANCES.astype(dtype), ["B2", "B3", "B4", "B8"])
    shown = np.round(np.clip(REFLECTANCES / 10_000, 0, 1) * 255)
    pixels, missing = read_bands(path, scale=SCALE)
    np.testing.assert_array_equal(pixels, np.moveaxis(shown, 0, -1))
    assert not missing.any()
    some, _ = read_bands(path, ("B4", 2, "B2"), scale=SCALE)
    np.testing.assert_array_equal(some, pixels[:, :, [2, 1, 0]])


def test_what_is_missing_by_no_data_by_nan_and_by_a_mask(tmp_path):
    bands = REFLECTANCES.astype(np.float32)
    bands[1, 2, 3] = -9999
    bands[0, 4, 0] = np.nan
    path = write(tmp_path / "s.tif", bands, nodata=-9999)
    pixels, missing = read_bands(path, scale=SCALE)
    assert np.argwhere(missing).tolist() == [[2, 3], [4, 0]]
    assert not pixels[missing].any()
    assert not read_bands(path, (3, 4), scale=SCALE)[1].any()  # these bands are whole
    path = write(tmp_path / "m.tif", REFLECTANCES.astype(np.uint16))
    hidden = np.random.default_rng(1).random((6, 5)) < 0.3
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(~hidden)
    np.testing.assert_array_equal(read_bands(path, scale=SCALE)[1], hidden)


@pytest.mark.parametrize(
    ("quality", "cloudy", "clear"),
    [
        (SENTINEL2_SCL, (0, 3, 8, 9, 10), (4, 5, 6, 7, 11)),
        (LANDSAT_QA_PIXEL, (1, 2, 4, 8, 16, 21826, 22280), (21824, 21888, 32)),
        (Quality(5, values=(7,)), (7,), (0, 6)),
    ],
)
def test_clouds_by_a_quality_band_which_is_no_channel(tmp_path, quality, cloudy, clear):
    levels = np.resize([*cloudy, *clear], (1, 6, 5))
    name = quality.band if isinstance(quality.band, str) else "Q"
    bands = np.concatenate([REFLECTANCES, levels]).astype(np.uint16)
    path = write(tmp_path / "s.tif", bands, ["B2", "B3", "B4", "B8", name])
    pixels, missing = read_bands(path, scale=SCALE, quality=quality)
    assert pixels.shape == (6, 5, 4)
    np.testing.assert_array_equal(missing, np.isin(levels[0], cloudy))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_picture_is_turned_as_exif_says_and_its_mask_with_it(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif, lossless=suffix == "webp", subsampling=0)
    expected = np.asarray(read_image(path))
    Image.fromarray(255 * (expected[:, :, 0] > 99).astype(np.uint8)).save(tmp_path / "a.mask.png")
    found, missing = read_bands(path, scale=(0, 255))
    np.testing.assert_array_equal(missing, expected[:, :, 0] > 99)
    difference = np.abs(found.astype(int) - expected)[~missing]
    assert difference.max() <= (2 if suffix == "jpg" else 0)  # two decoders


def test_what_lies_on_earth_is_not_turned(tmp_path):
    """GDAL's own place for it is a tag of EXIF's name in a TIFF."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "a.tif"
    Image.fromarray(REFLECTANCES[0].astype(np.uint8)).save(path, exif=exif)
    assert read_bands(path, scale=(0, 255))[0].shape == (5, 6, 1)
    with rasterio.open(path, "r+") as file:
        file.transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    assert read_bands(path, scale=(0, 255))[0].shape == (6, 5, 1)


@pytest.mark.parametrize("name", ["pages", "copies", "empty"])
def test_several_pages_and_nothing_are_named(tmp_path, name):
    path = tmp_path / f"{name}.tif"
    whole = Image.fromarray(REFLECTANCES[0].astype(np.uint8))
    small = whole.resize((2, 3))
    small.encoderinfo = {"tiffinfo": {254: int(name == "copies")}}
    whole.save(path, save_all=True, append_images=[small])
    if name == "copies":
        assert read_bands(path, scale=(0, 255))[0].shape == (6, 5, 1)
        return
    if name == "empty":
        path.write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"empty \(0 bytes\)|it holds 2 pages, and one"):
        read_bands(path, scale=(0, 255))


def test_what_cannot_be_read_is_named(tmp_path):
    path = write(tmp_path / "s.tif", REFLECTANCES.astype(np.uint16), ["B2", "B3", "B4", "B8"])
    for band in ("B5", 5, 0):
        with pytest.raises(UnreadableImageError, match=r"s\.tif: .*no band .*; it has 1 .B2., 2"):
            read_bands(path, (band,), scale=SCALE)
    with pytest.raises(UnreadableImageError, match="no band 'SCL'"):
        read_bands(path, scale=SCALE, quality=dataclasses.replace(SENTINEL2_SCL))
    echoes = write(tmp_path / "c.tif", REFLECTANCES.astype(np.complex64))
    with pytest.raises(UnreadableImageError, match=r"c\.tif: .*complex numbers in band 2, .*magn"):
        read_bands(echoes, (2,), scale=SCALE)
    (tmp_path / "v.vrt").write_text(
        '<VRTDataset rasterXSize="5" rasterYSize="6"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">gone.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(UnreadableImageError, match=r"v\.vrt: .*gone\.tif: No such file"):
        read_bands(tmp_path / "v.vrt", scale=SCALE)
    (tmp_path / "x.tif").write_text("none")
    with pytest.raises(UnreadableImageError, match=r"x\.tif"):
        read_bands(tmp_path / "x.tif", scale=SCALE)
    with pytest.raises(ValueError, match="scale must name a lower value and a higher one"):
        read_bands(path, scale=(1, 1))


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint8", {"nodata": 7, "photometric": "MINISBLACK"}),
        ("uint16", {"nodata": 0}),
        ("int16", {"nodata": -3}),
        ("float32", {"nodata": -3.4028234663852886e38}),
        ("float64", {"nodata": 0.1}),
        ("uint8", {"photometric": "RGB", "alpha": "YES"}),
        ("uint16", {}),
    ],
)
def test_masks_and_bytes_are_those_of_gdal_and_of_arithmetic(tmp_path, dtype, options):
    bands = (REFLECTANCES % 50 - (25 if dtype[0] in "if" else 0)).astype(dtype)
    if "nodata" in options:
        bands[REFLECTANCES % 9 == 0] = options["nodata"]
    path = write(tmp_path / "s.tif", bands, **options)
    with rasterio.open(path) as file:
        shown = [1, 3] if "alpha" in options else [1, 3, 4]
        gone = (file.read_masks(shown) == 0).any(axis=0)
        if "alpha" in options:
            assert (gone == (bands[3] == 0)).all()
    pixels, missing = Bands(tuple(shown), ((-10, 20),)).read(path)
    np.testing.assert_array_equal(missing, gone)
    wanted = np.round(255 * np.clip((bands[[n - 1 for n in shown]].astype(float) + 10) / 30, 0, 1))
    np.testing.assert_array_equal(pixels, np.where(gone, 0, wanted).transpose(1, 2, 0))
