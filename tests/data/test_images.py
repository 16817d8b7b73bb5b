import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jist.data import UnreadableImageError, read_image, resize

NOISE = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)


def encoded(image_format, **options):
    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, image_format, **options)
    return stream.getvalue()


ENCODED = {
    "jpeg": encoded("JPEG"),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "png": encoded("PNG"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.mark.parametrize("image_format", ["png", "bmp", "tiff"])
def test_lossless_formats_come_back_exactly(directory, image_format):
    path = directory / "exact"
    path.write_bytes(ENCODED[image_format])
    np.testing.assert_array_equal(np.asarray(read_image(path)), NOISE)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged TIFF headers
@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_truncated_file_is_never_taken_for_an_image(directory, data):
    name = data.draw(st.sampled_from(sorted(ENCODED)))
    # Less than 32 bytes from the end, PNG and BMP have only lost what follows their pixels.
    length = data.draw(st.integers(0, len(ENCODED[name]) - 32))
    path = directory / "truncated.img"
    path.write_bytes(ENCODED[name][:length])
    with pytest.raises(UnreadableImageError, match=r"truncated\.img"):
        read_image(path)


def test_missing_and_foreign_files_are_named(directory):
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg.*No such file"):
        read_image(directory / "gone.jpg")
    (directory / "text.jpg").write_text("a page of text")
    with pytest.raises(UnreadableImageError, match=r"text\.jpg.*no image format"):
        read_image(directory / "text.jpg")


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 128, (128, 128, 128)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 127), (128, 128, 128)),
        ("LA", (40, 255), (40, 40, 40)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_every_mode_becomes_the_rgb_a_viewer_shows(directory, mode, colour, expected):
    path = directory / "mode.tiff"
    Image.new(mode, (4, 3), colour).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.getpixel((3, 2)) == expected


def test_palette_with_transparency(directory):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(directory / "palette.png", transparency=b"\xff\x00")
    pixels = np.asarray(read_image(directory / "palette.png"))
    np.testing.assert_array_equal(pixels, [[[10, 20, 30], [255, 255, 255]]])


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_not_clipped(directory, byte_order):
    levels = np.array([[0, 257, 32896, 65535]])
    path = directory / f"deep{byte_order[0] == '>'}.tiff"
    Image.fromarray(levels.astype(byte_order)).save(path)
    np.testing.assert_array_equal(np.asarray(read_image(path))[0, :, 0], [0, 1, 128, 255])


def test_pixels_without_a_defined_white_are_refused(directory):
    Image.fromarray(np.ones((2, 2), np.float32)).save(directory / "float.tiff")
    with pytest.raises(UnreadableImageError, match=r"float\.tiff.*mode 'F'"):
        read_image(directory / "float.tiff")


def test_orientation_is_left_as_stored(directory):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    Image.fromarray(NOISE).save(directory / "turned.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(directory / "turned.png")), NOISE)


@pytest.mark.parametrize("size", [9, 56])
def test_bicubic_is_that_of_torch(size):
    torch = pytest.importorskip("torch", reason="the oracle is torch.nn.functional.interpolate")
    square = NOISE[:, :20] // 2 + 64  # no overshoot to clip between the two passes
    wanted = torch.nn.functional.interpolate(
        torch.tensor(square).permute(2, 0, 1)[None].float(),
        size=(size, size),
        mode="bicubic",
        antialias=True,
    )
    wanted = wanted[0].permute(1, 2, 0).numpy()
    # Pillow rounds to whole levels after each pass.
    np.testing.assert_allclose(resize(Image.fromarray(square), size), wanted, atol=1.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("turned", [False, True])
def test_resize_is_shorter_side_to_size_then_centre_crop(interpolation, turned):
    image = Image.fromarray(NOISE.swapaxes(0, 1) if turned else NOISE)
    whole = image.resize(
        (image.width // 2, image.height // 2), Image.Resampling[interpolation.upper()]
    )
    left, top = (whole.width - 10) // 2, (whole.height - 10) // 2
    wanted = np.asarray(whole)[top : top + 10, left : left + 10]
    np.testing.assert_array_equal(resize(image, 10, interpolation), wanted)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_an_image_of_the_size_already_is_only_cut(interpolation):
    wanted = NOISE[:, 4:24]
    np.testing.assert_array_equal(resize(Image.fromarray(NOISE), 20, interpolation), wanted)
    np.testing.assert_array_equal(resize(Image.fromarray(wanted), 20, interpolation), wanted)


def test_a_strip_is_not_blown_up():
    # Resizing all of it before the cut would take 50,000 x 224 x 224 pixels.
    assert resize(Image.new("RGB", (50_000, 1)), 224).shape == (224, 224, 3)


def test_bad_arguments_are_refused():
    image = Image.fromarray(NOISE)
    with pytest.raises(ValueError, match="size must be at least 1 pixel, got 0"):
        resize(image, 0)
    with pytest.raises(ValueError, match=r"interpolation must be one of .* got 'cubic'"):
        resize(image, 8, "cubic")
