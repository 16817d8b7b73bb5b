"""Missing regions: read from files, and resized together with the image."""

import numpy as np
import pytest
from PIL import Image

from jist.data import NaturalMasks, UnreadableImageError, batches, load_dataset, resize
from jist.data.images.clouds import cloud_mask
from jist.data.images.missing import read_with_missing

NOISE = np.random.default_rng(0).integers(1, 255, (6, 8, 3), np.uint8)
HOLE = np.zeros((6, 8), bool)
HOLE[1:3, 4:7] = True


def test_an_opaque_image_without_a_mask_is_all_there(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    image, missing = read_with_missing(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), NOISE)
    assert missing.shape == (6, 8)
    assert not missing.any()


@pytest.mark.parametrize("alpha_there", [255, 1, 128])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_fully_transparent_pixels_are_missing_and_others_are_not(tmp_path, mode, alpha_there):
    image = Image.fromarray(NOISE).convert(mode)
    image.putalpha(Image.fromarray(np.where(HOLE, 0, alpha_there).astype(np.uint8)))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_with_missing(tmp_path / "a.png")[1], HOLE)


def test_a_transparent_colour_of_a_palette_is_missing(tmp_path):
    image = Image.fromarray(HOLE.astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=1)
    np.testing.assert_array_equal(read_with_missing(tmp_path / "a.png")[1], HOLE)


@pytest.mark.parametrize("value", [65_535, 1000, 0])
def test_a_transparent_value_of_sixteen_bits_is_missing_and_white(tmp_path, value):
    """As GDAL writes grey PNGs with no-data."""
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 600 + 300
    image = Image.fromarray(np.where(HOLE, value, levels).astype(np.uint16))
    image.save(tmp_path / "a.png", transparency=value)
    image, missing = read_with_missing(tmp_path / "a.png")
    np.testing.assert_array_equal(missing, HOLE)
    expected = np.where(HOLE, 255, (levels + 128) // 257)
    np.testing.assert_array_equal(np.asarray(image)[:, :, 0], expected)


@pytest.mark.parametrize(("kind", "value"), [("RGB", 0), ("L", 7), ("I;16", 40_000), ("P", 9)])
def test_a_value_for_no_data_is_that_of_the_stored_pixels(tmp_path, kind, value):
    if kind == "RGB":
        pixels = np.where(HOLE[:, :, None], value, NOISE).astype(np.uint8)
        pixels[0, 0, :2] = value  # one channel is there, so the pixel is
        image = Image.fromarray(pixels)
    elif kind == "P":
        image = Image.fromarray(np.where(HOLE, 2, 9).astype(np.uint8), "P")
        image.putpalette([*([1] * 6), *([value] * 3)] + [3] * 21)
    else:
        dtype = np.uint8 if kind == "L" else np.uint16
        image = Image.fromarray(np.where(HOLE, value, 100).astype(dtype))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_with_missing(tmp_path / "a.png", value)[1], HOLE)
    assert not read_with_missing(tmp_path / "a.png")[1].any()


def test_a_value_that_an_image_cannot_hold_is_an_error_that_names_it(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match=r"a\.png: no_data=256 cannot .* 0 to 255"):
        read_with_missing(tmp_path / "a.png", 256)
    Image.fromarray(np.full((6, 8), 3000, np.uint16)).save(tmp_path / "deep.png")
    assert read_with_missing(tmp_path / "deep.png", 3000)[1].all()
    with pytest.raises(UnreadableImageError, match="digits/.*no_data=256 cannot .* 0 to 255"):
        load_dataset("digits", "test").open_with_missing(0, 256)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_a_mask_beside_the_image_says_what_is_missing(tmp_path, mode):
    Image.fromarray(NOISE).save(tmp_path / "scene.one.jpg")
    mask = Image.fromarray((3 * HOLE).astype(np.uint8), "P" if mode == "P" else "L")
    if mode == "P":
        mask.putpalette([0, 0, 0] * 4)
    elif mode == "1":
        mask = Image.fromarray(HOLE)
    mask.convert(mode).save(tmp_path / "scene.one.mask.png")
    np.testing.assert_array_equal(read_with_missing(tmp_path / "scene.one.jpg")[1], HOLE)


def test_a_mask_that_does_not_fit_or_cannot_be_read_is_named(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    Image.new("L", (6, 8)).save(tmp_path / "a.mask.png")
    with pytest.raises(UnreadableImageError, match=r"a\.mask\.png must have .* 8×6, got 6×8"):
        read_with_missing(tmp_path / "a.png")
    (tmp_path / "a.mask.png").write_text("none")
    with pytest.raises(UnreadableImageError, match=r"a\.mask\.png: it begins like none of"):
        read_with_missing(tmp_path / "a.png")


def test_masks_are_no_images_of_a_folder(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for n in range(2):
            Image.fromarray(NOISE).save(tmp_path / name / f"{n}.png")
        Image.fromarray(255 * HOLE.astype(np.uint8)).save(tmp_path / name / "1.mask.png")
    found = [load_dataset(f"folder:{tmp_path}", split) for split in ("train", "test")]
    assert sum(map(len, found)) == 4
    for dataset in found:
        for index, key in enumerate(dataset.keys):
            missing = dataset.open_with_missing(index)[1]
            np.testing.assert_array_equal(missing, HOLE if "1" in key else False)


def test_clouds_cover_what_they_are_to_cover_and_depend_on_seed_and_id():
    for cover in (0.1, 0.5, 0.99):
        assert cloud_mask(0, 7, 32, cover).sum() == round(cover * 1024)
    few, many = cloud_mask(0, 7, 32, 0.2), cloud_mask(0, 7, 32, 0.6)
    assert (many >= few).all()
    assert not np.array_equal(few, cloud_mask(1, 7, 32, 0.2))
    assert not np.array_equal(few, cloud_mask(0, 8, 32, 0.2))
    np.testing.assert_array_equal(few, cloud_mask(0, 7, 32, 0.2))
    with pytest.raises(ValueError, match=r"^cover must lie in \(0, 1\), got 1.0"):
        cloud_mask(0, 7, 32, 1.0)


def test_clouds_are_heaps_not_dust():
    # The right neighbour of a covered pixel is covered far more often than `cover`.
    for example_id in range(20):
        cloud = cloud_mask(0, example_id, 64, 0.3)
        assert cloud[:, 1:][cloud[:, :-1]].mean() > 0.8


def test_batches_bring_what_is_missing():
    dataset = load_dataset("digits", "test")
    natural = NaturalMasks(clouds=0.25, seed=3)
    batch = next(batches(dataset, image_size=16, batch_size=5, rows=[9, 2, 5], natural=natural))
    for place, row in enumerate([9, 2, 5]):
        cloud = cloud_mask(3, int(dataset.example_ids[row]), 16, 0.25)
        np.testing.assert_array_equal(batch.missing[place], cloud)
        there = resize(dataset.open(row), 16)
        np.testing.assert_array_equal(batch.images[place][~cloud], there[~cloud])
        assert (batch.images[place][cloud] == natural.fill).all()
    assert next(batches(dataset, image_size=16, batch_size=5)).missing is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_missing": 1.0}, r"max_missing must lie in \[0, 1\), got 1.0"),
        ({"no_data": -9999}, r"no_data must lie in \[0, 255\], or in \[0, 65535\] .* got -9999"),
        ({"no_data": 65536}, r"no_data must lie in \[0, 255\], or in \[0, 65535\] .* got 65536"),
        ({"clouds": 0.0}, r"clouds .--simulate-clouds. must lie in \(0, 1\), got 0.0"),
    ],
)
def test_shares_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NaturalMasks(**options)
