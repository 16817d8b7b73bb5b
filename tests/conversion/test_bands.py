"""Encoders of more bands than colours, and the names that wrappers put before a model's."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from conversion.__main__ import main
from jist.features import cls_vectors
from jist.models import MAEEncoder, Preprocessing, ViTConfig, load_mae

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
import pytorch  # noqa: E402

BANDS = 13  # of Sentinel-2, as SSL4EO-S12's MAE sees them under facebookresearch's names


def test_a_masked_autoencoder_of_thirteen_bands(tmp_path, capsys):
    """`--verify` compares tokens, predicted pixels and loss with the PyTorch definition."""
    model = checkpoints.mae(**checkpoints.SMALL, decoder=checkpoints.DECODER, channels=BANDS)
    wrapped = {f"module._orig_mod.model.{name}": t for name, t in model.state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "ssl4eo.pth")
    arguments = [str(tmp_path / "ssl4eo.pth"), str(tmp_path / "out")]
    heads = ["--heads", "4", "--decoder-heads", "4"]
    assert main([*arguments, *heads, "--mean", "0.1", "0.2"]) == 1
    assert "takes 13 channels; --mean and --std need a number for each" in capsys.readouterr().err
    status = main([*arguments, *heads, "--verify"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "13 channels" in said.out
    mae = load_mae(tmp_path / "out")
    assert mae.encoder.config.channels == BANDS
    assert mae.encoder.preprocessing == Preprocessing.of(BANDS)

    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, BANDS), np.uint8)
    keep = jnp.asarray([[0, 3, 7, 9], [1, 2, 14, 15]], jnp.int32)
    ours = cls_vectors(mae.encoder, jnp.asarray(pixels), keep)
    theirs = pytorch.tokens(model, jnp.asarray(pixels / 255, jnp.float32), keep)[:, 0]
    assert pytorch.relative(ours, theirs) < 1e-5

    assert main([str(tmp_path / "out"), str(tmp_path / "back.pth"), "--to", "facebook"]) == 1
    assert "13 channels; those of colour images alone" in capsys.readouterr().err


def test_colour_images_are_described_as_before_there_were_bands():
    """So digests, and the runs that hold them, stay as they are."""
    assert "channels" not in ViTConfig.nano().as_json()
    assert ViTConfig(**ViTConfig(channels=2).as_json()).channels == 2


def test_means_are_as_many_as_channels():
    with pytest.raises(ValueError, match="as many channels, got 2 and 3"):
        Preprocessing(mean=(0.0, 0.0))
    with pytest.raises(ValueError, match="channels must be positive, got 0"):
        ViTConfig(channels=0)
    with pytest.raises(ValueError, match="a mean for each of 2 channels, got 3"):
        MAEEncoder(
            ViTConfig(8, 4, 8, 1, 2, 8, channels=2), preprocessing=Preprocessing(), rngs=nnx.Rngs(0)
        )
