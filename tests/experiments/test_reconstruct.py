"""The picture of original, masked and reconstructed images is drawn, and shows what it says."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments import reconstruct
from jist.models import MAE, DecoderConfig, Preprocessing, ViTConfig, save_mae


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    mae = MAE(
        ViTConfig(16, 4, dim=16, depth=1, heads=2, mlp_dim=32),
        DecoderConfig(8, 1, 2, 16),
        rngs=nnx.Rngs(0),
    )
    path = tmp_path_factory.mktemp("mae") / "mae"
    save_mae(mae, path)
    return path


def test_picture_is_written(directory, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = reconstruct.ReconstructOptions(
        encoder=directory, images=(tmp_path / "a.png",), out=tmp_path / "deep" / "out.png"
    )
    reconstruct.main(options)
    with Image.open(tmp_path / "deep/out.png") as picture:
        assert picture.width > 2 * picture.height  # three in a row
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.png"]


def test_colours_come_back_from_the_encoder_s_form():
    preprocessing = Preprocessing()
    pixels = jnp.arange(2 * 2 * 3, dtype=jnp.uint8).reshape(1, 2, 2, 3) * 20
    shown = reconstruct.to_display(preprocessing.normalize(pixels), preprocessing)
    np.testing.assert_allclose(shown, np.asarray(pixels) / 255, atol=1e-6)
