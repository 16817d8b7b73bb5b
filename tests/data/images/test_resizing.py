"""Images and what is missing of them become squares: cut, squashed or padded."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from jist.data import resize
from jist.data.images.resizing import resize_missing
from jist.models import Preprocessing
from jist.models.preprocessing import INTERPOLATIONS, RESIZES

NOISE = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
sides = st.integers(1, 40)
kinds = st.sampled_from(
    [Preprocessing(interpolation=kind, resize=how) for kind in INTERPOLATIONS for how in RESIZES]
)


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
    found = resize(image, 10, Preprocessing(interpolation=interpolation))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_an_image_of_the_size_already_is_only_cut(interpolation):
    wanted = NOISE[:, 4:24]
    for image in (NOISE, wanted):
        found = resize(Image.fromarray(image), 20, Preprocessing(interpolation=interpolation))
        np.testing.assert_array_equal(found, wanted)


def test_a_strip_is_not_blown_up():
    # Resizing all of it before the cut would take 50,000 x 224 x 224 pixels.
    assert resize(Image.new("RGB", (50_000, 1)), 224).shape == (224, 224, 3)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="size must be at least 1 pixel, got 0"):
        resize(Image.fromarray(NOISE), 0)
    with pytest.raises(ValueError, match=r"interpolation must be one of .* got 'cubic'"):
        Preprocessing(interpolation="cubic")
    with pytest.raises(ValueError, match=r"resize must be one of .* got 'stretch'"):
        Preprocessing(resize="stretch")


@settings(deadline=None, max_examples=40)
@given(sides, sides, sides, st.sampled_from(INTERPOLATIONS))
def test_squashed_and_padded_as_pillow_does(width, height, size, interpolation):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    kind = Image.Resampling[interpolation.upper()]
    squash, pad = (
        Preprocessing(interpolation=interpolation, resize=how) for how in ("squash", "pad")
    )
    if 1 / size < width / height < size:  # else Pillow makes an image of no pixels
        wanted = ImageOps.pad(image, (size, size), kind, pad.fill)
        np.testing.assert_array_equal(resize(image, size, pad), np.asarray(wanted))
        here = ImageOps.pad(Image.new("L", image.size), (size, size), kind, 255)
        none = np.zeros((height, width), bool)
        np.testing.assert_array_equal(resize_missing(none, size, pad), np.asarray(here) > 0)
    wanted = np.asarray(image.resize((size, size), kind))
    np.testing.assert_array_equal(resize(image, size, squash), wanted)
    bands = np.asarray(image)[:, :, [0, 1, 2, 0]]  # band by band, as colours
    four = Preprocessing((0.5, 0.0, 0.1, 0.5), (1.0,) * 4, interpolation, resize="pad")
    three = dataclasses.replace(pad, mean=(0.5, 0.0, 0.1))
    found = resize(bands, size, four)
    np.testing.assert_array_equal(found[:, :, :3], resize(image, size, three))
    np.testing.assert_array_equal(found[:, :, 3], found[:, :, 0])


# Whatever values the missing pixels have, the present ones do not depend on them.
@settings(deadline=None, max_examples=60)
@given(sides, sides, sides, kinds, st.data())
def test_what_is_there_does_not_depend_on_what_is_missing(height, width, size, kind, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    missing = generator.random((height, width)) < data.draw(st.floats(0, 0.2))
    one, other = generator.integers(0, 256, (2, height, width, 3), np.uint8)
    other[~missing] = one[~missing]
    resized = resize_missing(missing, size, kind)
    assert resized.shape == (size, size)
    there = ~resized
    a, b = (resize(Image.fromarray(pixels), size, kind) for pixels in (one, other))
    np.testing.assert_array_equal(a[there], b[there])
    if not missing.any() and kind.resize != "pad":
        assert there.all()
    # Missing regions grow by no more than the reach of the filter and one pixel.
    if missing[:, : width // 2].sum() == 0 and width <= height and kind.resize != "pad":
        scale = width / size
        reach = 3 * max(scale, 1) + 1
        centres = (np.arange(size) + 0.5) * scale
        assert there[:, centres + reach < width // 2].all()
