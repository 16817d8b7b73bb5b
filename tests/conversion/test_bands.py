"""Encoders of more bands than colours, and the names that wrappers put before a model's."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from conversion.__main__ import main
from jist.features import cls_vectors
from jist.models import MAEEncoder, Preprocessing, ViTConfig, load_encoder, load_mae

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
import pytorch  # noqa: E402

from conversion import reference_sensors  # noqa: E402

BANDS = 13  # of Sentinel-2, as SSL4EO-S12's MAE sees them under facebookresearch's names


def test_a_masked_autoencoder_of_thirteen_bands(tmp_path, capsys, converted):
    """`--verify` compares tokens, predicted pixels and loss with the PyTorch definition."""
    model = checkpoints.mae(**checkpoints.SMALL, decoder=checkpoints.DECODER, channels=BANDS)
    wrapped = {f"module._orig_mod.model.{name}": t for name, t in model.state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "ssl4eo.pth")
    arguments = [str(tmp_path / "ssl4eo.pth"), str(tmp_path / "out")]
    heads = ["--heads", "4", "--decoder-heads", "4"]
    assert main([*arguments, *heads, "--mean", "0.1", "0.2"]) == 1
    assert "takes 13 channels; --mean and --std need a number for each" in capsys.readouterr().err
    assert "13 channels" in converted(*arguments, *heads, "--verify")
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


def test_names_and_scale_of_bands_are_kept(tmp_path, capsys):
    model = checkpoints.mae(**checkpoints.SMALL, channels=2)
    torch.save(model.state_dict(), tmp_path / "s1.pth")
    arguments = [str(tmp_path / "s1.pth"), str(tmp_path / "out"), "--heads", "4"]
    assert main([*arguments, "--bands", "VV"]) == 1
    assert "bands must have an entry for each of 2 channels, got 1" in capsys.readouterr().err
    assert main([*arguments, "--scale", "0", "-25"]) == 1
    assert "--scale must be pairs of a lower value and a higher one" in capsys.readouterr().err
    given = ["--bands", "VV", "VH", "--scale", "-25", "0", "--mean", "0.5", "0.3"]
    assert main([*arguments, *given, "--std", "0.2", "0.2"]) == 0
    kept = load_encoder(tmp_path / "out").preprocessing
    assert kept.bands == ("VV", "VH")
    assert kept.scale == ((-25.0, 0.0),) * 2
    assert kept.mean == (0.5, 0.3)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_one_time_step_of_a_sequences_encoder(tmp_path, capsys, converted, prefix):
    """As Prithvi-EO: patches of one time step, positions in column, row and frame."""
    frames, side, dim = 3, 4, 64
    sizes = (32, 8, dim, 2, 4, 128, 1e-6)
    model = checkpoints.randomize(
        reference_sensors.SequenceEncoder(*sizes, channels=6, tokens=1 + frames * side**2)
    )
    generator = np.random.default_rng(0)
    column, row, frame = (generator.normal(size=(n, w)) for n, w in ((4, 24), (4, 24), (3, 16)))
    places = [
        np.concatenate([column[x], row[y], frame[t]])
        for t in range(frames)
        for y in range(side)
        for x in range(side)
    ]
    positions = torch.tensor(np.array([np.zeros(dim), *places]), dtype=torch.float32)[None]
    model.pos_embed.data = positions
    state = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    name = f"{prefix}temporal_embed_enc.scale" if prefix else "decoder_embed.weight"
    state |= {name: torch.ones(1), "decoder.mask_token" if prefix else "mask_token": torch.ones(1)}
    torch.save(state, tmp_path / "prithvi.pt")
    arguments = [str(tmp_path / "prithvi.pt"), str(tmp_path / "out"), "--heads", "4", "--verify"]
    assert "the first of 3 time steps" in converted(*arguments)
    config = load_encoder(tmp_path / "out").config
    assert (config.channels, config.image_size) == (6, 32)
    state[f"{prefix}pos_embed"] = torch.randn(1, 1 + frames * side**2, dim)
    torch.save(state, tmp_path / "prithvi.pt")
    assert main([*arguments, "--overwrite"]) == 1
    assert "48 positions are no frames of squares" in capsys.readouterr().err


def test_scale_maes_positions_are_made_for_a_ground_resolution(tmp_path, capsys, converted):
    model = checkpoints.mae(**checkpoints.SMALL)
    torch.save(model.state_dict(), tmp_path / "scale.pth")
    arguments = [str(tmp_path / "scale.pth"), str(tmp_path / "out"), "--heads", "4", "--verify"]
    converted(*arguments, "--ground-resolution", "10")
    positions = load_encoder(tmp_path / "out").positions[...]
    np.testing.assert_allclose(
        positions[2, :2], [np.sin(10), np.sin(10 / 10_000 ** (1 / 16))], atol=1e-6
    )
    assert main([*arguments, "--overwrite", "--ground-resolution", "0"]) == 1
    assert "--ground-resolution must be positive metres" in capsys.readouterr().err
