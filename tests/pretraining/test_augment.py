"""Random augmentation against properties of any crop, and against exact cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jist.pretraining import random_view

SIDE = 16


@functools.partial(jax.jit, static_argnums=2)
def views(key, images, area):
    draw = jax.vmap(random_view, in_axes=(0, 0, None))
    return draw(jax.random.split(key, len(images)), images, area)


def gradients(count):
    """Images whose red grows from left to right and whose green from top to bottom."""
    ramp = np.arange(SIDE, dtype=np.uint8) * 16
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = ramp[None, :], ramp[:, None]
    return jnp.asarray(np.tile(image, (count, 1, 1, 1)))


def test_the_whole_image_comes_back_or_its_mirror_image():
    """The largest crop of every aspect is cut to the image, so one of two sides is whole."""
    image = gradients(200)
    seen = np.asarray(views(jax.random.key(0), image, (1.0, 1.0)))
    plain = np.asarray(image[0], np.float32)
    # Whichever side was cut, at least one axis shows the whole ramp.
    columns = np.abs(seen[:, 2:-2, :, 0] - plain[None, 2:-2, :, 0]).max((1, 2)) < 2
    rows = np.abs(seen[:, :, 2:-2, 1] - plain[None, :, 2:-2, 1]).max((1, 2)) < 2
    mirrored = np.abs(seen[:, 2:-2, ::-1, 0] - plain[None, 2:-2, :, 0]).max((1, 2)) < 2
    assert (columns | mirrored | rows).all()


def test_half_of_the_views_are_mirrored():
    seen = np.asarray(views(jax.random.key(1), gradients(2000), (0.2, 1.0)))
    mirrored = np.mean(seen[:, 8, 0, 0] > seen[:, 8, -1, 0])
    assert abs(mirrored - 0.5) < 4 * 0.5 / 2000**0.5


def test_the_area_of_a_crop_is_what_was_asked_for():
    """The extent of a view is read off its ramps."""
    seen = np.asarray(views(jax.random.key(2), gradients(500), (0.3, 0.5)))
    # Between the centres of the first and the last pixel lie (SIDE - 1) / SIDE of a crop's side.
    shares = [
        np.abs(last - first) / 16 / (SIDE - 1)
        for first, last in (
            (seen[:, 8, 2, 0], seen[:, 8, -3, 0]),
            (seen[:, 2, 8, 1], seen[:, -3, 8, 1]),
        )
    ]
    areas = np.prod(shares, axis=0) * ((SIDE - 1) / (SIDE - 5)) ** 2
    assert areas.min() > 0.25
    assert areas.max() < 0.55
    assert abs(areas.mean() - 0.4) < 0.03


def test_views_are_draws_of_the_key_alone():
    image = gradients(4)
    same = [views(jax.random.key(3), image, (0.2, 1.0)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], views(jax.random.key(4), image, (0.2, 1.0)))
    assert not np.array_equal(same[0][0], same[0][1])


def test_what_is_missing_reaches_no_pixel_that_is_there():
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (64, SIDE, SIDE, 3)).astype(np.uint8)
    missing = generator.random((64, SIDE, SIDE, 1)) < 0.04
    seen = []
    for value in (0, 255):
        alpha = np.where(missing, 0, 255).astype(np.uint8)
        images = np.concatenate([np.where(missing, value, colours).astype(np.uint8), alpha], 3)
        seen.append(np.asarray(views(jax.random.key(5), jnp.asarray(images), (0.2, 1.0))))
    there = seen[0][..., 3] == 255
    np.testing.assert_array_equal(seen[0][there], seen[1][there])
    # And no further pixels are lost, except where pixels are only moved.
    differs = np.abs(seen[0] - seen[1]).max(axis=3) > 0
    assert there.mean() > 0.1
    assert np.mean(differs | there) > 0.9


def test_views_of_whole_images_are_the_same_with_a_fourth_channel():
    images = jax.random.randint(jax.random.key(0), (8, SIDE, SIDE, 3), 0, 256).astype(jnp.uint8)
    whole = jnp.concatenate([images, jnp.full((8, SIDE, SIDE, 1), 255, jnp.uint8)], axis=3)
    plain = views(jax.random.key(6), images, (0.2, 1.0))
    seen = views(jax.random.key(6), whole, (0.2, 1.0))
    np.testing.assert_allclose(seen[..., :3], plain, atol=1e-3)
    assert (seen[..., 3] == 255).all()


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_impossible_areas_are_told(area):
    with pytest.raises(ValueError, match=r"crop_area must satisfy 0 < least <= largest <= 1"):
        random_view(jax.random.key(0), gradients(1)[0], area)


def test_what_lies_in_a_border_is_in_no_crop():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    other = image.copy()
    other[:2], other[:, :2] = 255, 255
    for number in range(5):
        key = jax.random.key(number)
        seen = [random_view(key, jnp.asarray(of), border=2) for of in (image, other)]
        np.testing.assert_array_equal(*seen)
        assert seen[0].shape == image.shape
    assert np.abs(random_view(key, jnp.asarray(image)) - seen[0]).max() > 1


def test_bands_are_cropped_as_colours_are_and_what_is_missing_with_them():
    """Four bands are not three and a mask."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    there = np.where(generator.random((SIDE, SIDE, 1)) < 0.9, 255, 0).astype(np.uint8)
    masked = np.concatenate([colours, there], axis=2)
    bands = np.concatenate([colours, colours[:, :, :1], there], axis=2)
    key = jax.random.key(5)
    three = np.asarray(random_view(key, jnp.asarray(masked)))
    four = np.asarray(random_view(key, jnp.asarray(bands), channels=4))
    np.testing.assert_array_equal(four[:, :, [0, 1, 2, 4]], three)
    np.testing.assert_array_equal(four[:, :, 3], three[:, :, 0])
    whole = np.asarray(random_view(key, jnp.asarray(bands[:, :, :4]), channels=4))
    np.testing.assert_array_equal(whole, four[:, :, :4])
