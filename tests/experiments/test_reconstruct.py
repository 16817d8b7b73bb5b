"""The picture of original, masked and reconstructed images shows the right pixels."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments import reconstruct
from experiments.figures import reconstruction
from jist.models import MAE, DecoderConfig, Preprocessing, ViTConfig, save_mae


@pytest.fixture(scope="module")
def mae():
    return MAE(
        ViTConfig(16, 4, dim=16, depth=1, heads=2, mlp_dim=32),
        DecoderConfig(8, 1, 2, 16),
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope="module")
def directory(mae, tmp_path_factory):
    path = tmp_path_factory.mktemp("mae") / "mae"
    save_mae(mae, path)
    return path


def test_picture_is_written(directory, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = reconstruct.ReconstructOptions(
        encoder=str(directory), images=(tmp_path / "a.png",), out=tmp_path / "deep" / "out.png"
    )
    reconstruct.main(options)
    with Image.open(tmp_path / "deep/out.png") as picture:
        assert picture.width > 2 * picture.height  # three in a row
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.png"]


def patches(images):
    """[B, 16, 16, 3] -> [B, 16, 48], row by row."""
    tiles = np.asarray(images).reshape(-1, 4, 4, 4, 4, 3).swapaxes(2, 3)
    return tiles.reshape(len(images), 16, -1)


def test_columns_are_the_image_what_is_kept_of_it_and_what_is_made_of_that(mae):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    kept = np.asarray([[0, 5, 6, 15], [1, 2, 8, 11]])
    original, masked, made = map(patches, reconstruction.views(mae, pixels, jnp.asarray(kept)))
    np.testing.assert_allclose(original, patches(pixels) / 255, atol=1e-6)
    for image, shown in enumerate(kept):
        hidden = np.setdiff1d(np.arange(16), shown)
        np.testing.assert_array_equal(masked[image, shown], original[image, shown])
        np.testing.assert_array_equal(masked[image, hidden], 0.5)
        np.testing.assert_allclose(made[image, shown], original[image, shown], atol=1e-6)
        assert np.abs(made[image, hidden] - original[image, hidden]).max() > 0.1  # untrained


def test_further_pictures_are_not_compiled_anew(mae, monkeypatch):
    traced, one = [], MAE.reconstruct
    monkeypatch.setattr(MAE, "reconstruct", lambda *given: traced.append(1) or one(*given))
    for _ in range(3):
        reconstruction.views(mae, np.zeros((1, 16, 16, 3), np.uint8), jnp.zeros((1, 1), jnp.int32))
    assert len(traced) == 1


def test_only_png_is_written(directory, tmp_path):
    options = reconstruct.ReconstructOptions(
        encoder=str(directory), images=(), out=tmp_path / "out.jpg"
    )
    with pytest.raises(ValueError, match=r"out must end in \.png, got .*out\.jpg"):
        reconstruct.main(options)


def test_colours_come_back_from_the_encoder_s_form():
    preprocessing = Preprocessing()
    pixels = jnp.arange(2 * 2 * 3, dtype=jnp.uint8).reshape(1, 2, 2, 3) * 20
    shown = preprocessing.colours(preprocessing.normalize(pixels))
    np.testing.assert_allclose(shown, np.asarray(pixels) / 255, atol=1e-6)
