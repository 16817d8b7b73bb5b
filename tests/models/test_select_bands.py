"""An encoder of fewer bands sees what the whole one sees with the others at their mean."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jist.models import MAEEncoder, Preprocessing, ViTConfig, select_bands


def test_bands_that_are_left_out_are_at_their_mean():
    own = Preprocessing(
        (0.2, 0.4, 0.6), (0.5, 1.0, 2.0), bands=("B2", "B3", "B4"), scale=((0.0, 1.0),) * 3
    )
    encoder = MAEEncoder(
        ViTConfig(8, 4, 8, 1, 2, 8, channels=3), preprocessing=own, rngs=nnx.Rngs(0)
    )
    fewer = select_bands(encoder, ["B4", "B2"])
    assert fewer.config.channels == 2
    assert fewer.preprocessing.mean == (0.6, 0.2)
    assert fewer.preprocessing.bands == ("B4", "B2")
    pixels = np.random.default_rng(0).normal(0, 1, (2, 8, 8, 2)).astype(np.float32)
    whole = np.stack([pixels[..., 1], np.zeros((2, 8, 8)), pixels[..., 0]], axis=3)
    np.testing.assert_allclose(
        fewer(jnp.asarray(pixels), None),
        encoder(jnp.asarray(whole, jnp.float32), None),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match=r"bands B4, B9 .* \(B2, B3, B4\): B9 missing"):
        select_bands(encoder, ["B4", "B9"])


def test_colour_encoders_are_described_as_before_there_were_bands():
    assert set(Preprocessing().as_json()) == {"mean", "std", "interpolation"}
    with pytest.raises(ValueError, match="bands must have an entry for each of 3 channels, got 1"):
        Preprocessing(bands=("B2",))
