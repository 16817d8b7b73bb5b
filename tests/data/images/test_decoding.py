import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from jist.data import UnreadableImageError, read_image, read_with_missing

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
@settings(deadline=None, max_examples=60)
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
    with pytest.raises(UnreadableImageError, match=r"text\.jpg.*begins like none of"):
        read_image(directory / "text.jpg")
    (directory / "empty.jpg").touch()
    with pytest.raises(UnreadableImageError, match=r"empty\.jpg: it is empty \(0 bytes\)"):
        read_image(directory / "empty.jpg")


def test_postscript_under_another_name_starts_no_program(directory, monkeypatch):
    """Pillow passes PostScript to Ghostscript, whatever the name of the file."""
    programs = directory / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {directory}/started\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it is looked up once
    file = directory / "x.png"
    Image.new("RGB", (4, 4)).save(file, "EPS")
    with pytest.raises(UnreadableImageError, match="begins like none of BMP, GIF, JPEG, "):
        read_image(file)
    with pytest.raises(UnreadableImageError, match="begins like none of BMP, GIF, JPEG, "):
        read_with_missing(file, None)
    assert not (directory / "started").exists()


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


def tiff(pixels, kind=1, extra=(), photometric=None, no_data=""):
    """An uncompressed little-endian TIFF of pixels [H, W, C], as the specification has it.

    Args:
        pixels: the values.
        kind: of SampleFormat: 1 unsigned, 2 signed, 3 float.
        extra: of ExtraSamples: 0 unspecified, 2 transparency.
        photometric: 0 where zero is white.
        no_data: text of GDAL's tag.
    """
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 259: [1]}
    colours = (2 if channels > 2 else 1) if photometric is None else photometric
    tags |= {262: [colours], 273: [8], 277: [channels], 278: [height]}
    tags |= {279: [len(data)], 338: list(extra), 339: [kind] * channels}
    tags |= {42113: no_data.encode() + b"\0" if no_data else []}
    tags = {tag: values for tag, values in tags.items() if values}
    after = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, outside = struct.pack("<H", len(tags)), b""
    for tag, values in tags.items():
        text = isinstance(values, bytes)
        packed = values if text else struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            place = struct.pack("<I", after + len(outside))
            outside += packed
            packed = place
        entries += struct.pack("<HHI", tag, 2 if text else 3, len(values)) + packed.ljust(4, b"\0")
    header = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return header + data + entries + bytes(4) + outside


@pytest.mark.parametrize(
    ("dtype", "channels", "options", "holds"),
    [
        ("uint8", 4, {"extra": (0,)}, "4 channel.s. of 8-bit unsigned integers, at least one nei"),
        ("uint8", 4, {}, "4 channel.s. of 8-bit unsigned integers, at least one neither colour"),
        ("uint8", 2, {"extra": (0,)}, "2 channel.s. of 8-bit unsigned"),
        ("uint8", 5, {"extra": (2, 0)}, "5 channel.s. of 8-bit unsigned"),
        ("uint8", 13, {"extra": (0,) * 10}, "holds other pixels"),
        ("uint16", 3, {}, "3 channel.s. of 16-bit unsigned integers; 8-bit grey or RGB"),
        ("uint16", 4, {"extra": (0,)}, "4 channel.s. of 16-bit"),
        ("uint16", 4, {"extra": (2,)}, "4 channel.s. of 16-bit"),
        ("int8", 1, {"kind": 2}, "1 channel.s. of 8-bit signed integers"),
        ("int16", 1, {"kind": 2}, "1 channel.s. of 16-bit signed integers"),
        ("uint32", 1, {}, "1 channel.s. of 32-bit unsigned integers"),
        ("float32", 1, {"kind": 3}, "1 channel.s. of 32-bit floats"),
    ],
)
def test_what_a_sensor_stores_is_refused_and_named(directory, dtype, channels, options, holds):
    path = directory / "sensor.tif"
    path.write_bytes(tiff(np.full((4, 4, channels), 100, dtype), **options))
    with pytest.raises(UnreadableImageError, match=rf"sensor\.tif: .*{holds}.*16-bit grey"):
        read_image(path)


@pytest.mark.parametrize(
    ("dtype", "channels", "options"),
    [("uint8", 1, {}), ("uint8", 3, {}), ("uint8", 4, {"extra": (2,)}), ("uint16", 1, {})],
)
def test_what_is_a_picture_is_read(directory, dtype, channels, options):
    path = directory / "picture.tif"
    pixels = np.full((4, 4, channels), np.iinfo(dtype).max, dtype)
    pixels[0, 0, :3] = 0
    path.write_bytes(tiff(pixels, **options))
    expected = np.full((4, 4, 3), 255)
    expected[0, 0] = 0
    np.testing.assert_array_equal(np.asarray(read_image(path)), expected)


def png(rows, depth, kind, *, transparent=None, palette=None):
    """A PNG of packed rows, as its specification has it; `kind` 0 grey, 2 RGB, 3 palette."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    width = 8 * len(rows[0]) // (depth * (3 if kind == 2 else 1))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))]
    parts += [] if palette is None else [chunk(b"PLTE", palette)]
    parts += [] if transparent is None else [chunk(b"tRNS", transparent)]
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def test_sixteen_bits_of_a_png_are_over_the_full_range(directory):
    row = struct.pack(">3H", 0x1234, 0x8000, 0xFFFF)
    (directory / "deep.png").write_bytes(png([row], 16, 2))
    assert read_image(directory / "deep.png").getpixel((0, 0)) == (0x12, 0x80, 0xFF)
    (directory / "hole.png").write_bytes(png([row], 16, 2, transparent=row))
    with pytest.raises(UnreadableImageError, match="16-bit RGB with a transparent colour"):
        read_image(directory / "hole.png")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_is_that_of_the_file_at_every_depth(directory, depth):
    """Of few bits Pillow scales the pixels but not the level that is transparent."""
    levels = np.arange(8 if depth == 8 else 2 ** min(depth, 3)) * (1 if depth < 16 else 9000)
    levels = np.resize(levels, 8)
    if depth == 16:
        row = levels.astype(">u2").tobytes()
    else:
        bits = (levels[:, None] >> np.arange(depth)[::-1]) & 1
        row = np.packbits(bits.astype(np.uint8).ravel()).tobytes()
    transparent = struct.pack(">H", int(levels[1]))
    path = directory / f"grey{depth}.png"
    path.write_bytes(png([row], depth, 0, transparent=transparent))
    image, missing = read_with_missing(path)
    np.testing.assert_array_equal(missing[0], levels == levels[1])
    shown = np.round(levels * 255 / (2**depth - 1))
    expected = np.where(levels == levels[1], 255, shown)
    np.testing.assert_array_equal(np.asarray(image)[0, :, 0], expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_every_depth(directory, depth):
    levels = np.resize(np.arange(2 ** min(depth, 3)), 8)
    row = np.packbits(((levels[:, None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8).ravel())
    colours = np.random.default_rng(depth).integers(0, 256, (8, 3), np.uint8)[: 2**depth]
    path = directory / f"palette{depth}.png"
    file = png([row.tobytes()], depth, 3, palette=colours.tobytes(), transparent=b"\xff\0")
    path.write_bytes(file)
    image, missing = read_with_missing(path)
    np.testing.assert_array_equal(missing[0], levels == 1)
    expected = np.where(levels[:, None] == 1, 255, colours[levels])
    np.testing.assert_array_equal(np.asarray(image)[0], expected)


@pytest.mark.parametrize(
    ("driver", "kind", "channels"),
    [
        *(("GTiff", "MINISBLACK", 1), ("GTiff", "MINISWHITE", 1), ("GTiff", "RGB", 3)),
        *(("GIF", None, 1), ("PNG", None, 1), ("PNG", None, 3), ("BMP", None, 3)),
        *(("WEBP", None, 3), ("JP2OpenJPEG", None, 1), ("JP2OpenJPEG", None, 3)),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_gdal_writes_and_reads_is_what_is_read(directory, driver, kind, channels):
    rasterio = pytest.importorskip("rasterio", reason="the oracle is GDAL")
    lossless = {"WEBP": {"LOSSLESS": True}, "JP2OpenJPEG": {"REVERSIBLE": "YES", "QUALITY": "100"}}
    path = directory / f"{driver}{kind}{channels}.image"
    bands = NOISE.transpose(2, 0, 1)[:channels]
    shape = {"height": 20, "width": 28, "count": channels, "dtype": "uint8"}
    options = lossless.get(driver, {}) | ({"photometric": kind} if kind else {})
    copied = directory / "copied.tif"
    with rasterio.open(copied, "w", driver="GTiff", **shape) as file:
        file.write(bands)
    if driver == "GTiff":
        with rasterio.open(path, "w", driver=driver, **shape, **options) as file:
            file.write(bands)
    else:
        from rasterio.shutil import copy

        copy(copied, path, driver=driver, **options)
    with rasterio.open(path) as file:
        expected = np.moveaxis(file.read(), 0, -1)
    if driver == "GIF":  # an index of a grey palette
        np.testing.assert_array_equal(expected[:, :, 0], bands[0])
    expected = 255 - expected if kind == "MINISWHITE" else expected
    np.testing.assert_array_equal(
        np.asarray(read_image(path)), np.broadcast_to(expected, NOISE.shape)
    )


def test_of_a_gif_the_first_frame_is_taken(directory):
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(directory / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_image(directory / "moving.gif").getpixel((0, 0)) == (10, 10, 10)


def test_a_tiff_of_several_pages_is_refused_unless_they_are_copies(directory):
    """Smaller copies and masks (NewSubfileType) say what they are."""
    whole, small = Image.fromarray(NOISE), Image.fromarray(NOISE[::2, ::2])
    path = directory / "pages.tif"
    for kind, pages in ((0, 3), (2, 3), (1, 1), (4, 1), (5, 1)):
        small.encoderinfo = {"tiffinfo": {254: kind}}
        whole.save(path, save_all=True, append_images=[small, small])
        if pages == 1:
            np.testing.assert_array_equal(np.asarray(read_image(path)), NOISE)
            continue
        with pytest.raises(UnreadableImageError, match=r"pages\.tif: it holds 3 pages, and one"):
            read_image(path)
        with pytest.raises(UnreadableImageError, match="store each in a file of its own"):
            read_with_missing(path)


def test_sixteen_bits_of_a_sensor_are_refused_and_white_may_be_zero(directory):
    reflectances = np.arange(16, dtype=np.uint16).reshape(4, 4, 1) * 680
    (directory / "dark.tif").write_bytes(tiff(reflectances))
    with pytest.raises(UnreadableImageError, match="16-bit grey of at most 10200: a sensor"):
        read_image(directory / "dark.tif")
    whole = (reflectances * 6).astype(np.uint16)
    (directory / "white.tif").write_bytes(tiff(whole, photometric=0))
    expected = (65535 - whole[:, :, 0].astype(int) + 128) // 257
    np.testing.assert_array_equal(
        np.asarray(read_image(directory / "white.tif"))[:, :, 0], expected
    )


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint8", 1), ("uint16", 1)])
@pytest.mark.parametrize("photometric", [None, 0])
def test_the_no_data_value_that_a_tiff_names_is_missing(directory, dtype, channels, photometric):
    pixels = np.full((4, 6, channels), np.iinfo(dtype).max // 2, dtype)
    pixels[:, :3] = 0
    pixels[0, 0, 1:] = 9  # one channel is there
    path = directory / "holes.tif"
    path.write_bytes(tiff(pixels, photometric=photometric if channels == 1 else None, no_data="0"))
    missing = read_with_missing(path)[1]
    expected = (pixels == 0).all(axis=-1)
    np.testing.assert_array_equal(missing, expected)
    path.write_bytes(tiff(pixels))
    assert not read_with_missing(path)[1].any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_an_image_is_turned_as_exif_says(directory, suffix, orientation):
    """The eight orientations, as the standard names the side of row 0 and column 0."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = directory / f"turned{orientation}.{suffix}"
    Image.fromarray(NOISE).save(path, exif=exif, lossless=True)
    shown = NOISE if orientation < 5 else NOISE.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    np.testing.assert_array_equal(np.asarray(read_image(path)), shown[::down, ::right])
    image, missing = read_with_missing(path)
    np.testing.assert_array_equal(np.asarray(image), shown[::down, ::right])
    assert missing.shape == (image.height, image.width)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match=r"a\.png: it is no file"):
        read_image(tmp_path / "a.png")
