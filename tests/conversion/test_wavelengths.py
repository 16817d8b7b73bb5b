"""DOFA: an encoder for any sensor, converted for the wavelengths of one."""

import jax.numpy as jnp
import numpy as np
import pytest

from conversion.__main__ import main
from jist.data.images.resizing import resize, resize_missing
from jist.features import cls_vectors
from jist.models import load_encoder

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
import pytorch  # noqa: E402

from conversion import reference_sensors  # noqa: E402

WAVELENGTHS = (0.665, 0.56, 0.49, 0.842)
GIVEN = ["--heads", "4", "--wavelengths", *map(str, WAVELENGTHS)]
OF_PRETRAINING = {
    "mask_token": torch.zeros(1, 1, 64),
    "projector.weight": torch.zeros(8, 64),
    "projector.bias": torch.zeros(8),
}


def dofa(wavelengths=WAVELENGTHS):
    sizes = (32, 8, 64, 2, 4, 128, 1e-6)
    model = reference_sensors.SensorEncoder(*sizes, wavelengths=wavelengths, inner=16)
    generator = checkpoints.randomize(model).patch_embed.weight_generator
    with torch.no_grad():  # so that the embedding is not lost beside the positions
        for layer in (generator.fc_weight, generator.fc_bias):
            layer.weight.mul_(10)
    return model


def test_names_of_the_authors_and_of_torchgeo(tmp_path, capsys, converted):
    """`--verify` compares with PyTorch's Transformer and with its convolution, which pads."""
    state = dofa().state_dict()
    torch.save(state | OF_PRETRAINING, tmp_path / "dofa.pth")
    said = converted(tmp_path / "dofa.pth", tmp_path / "out", *GIVEN, "--verify")
    assert "patches for 0.665, 0.56, 0.49, 0.842 µm" in said
    assert load_encoder(tmp_path / "out").config.channels == 4
    torchgeo = {name: tensor for name, tensor in state.items() if not name.startswith("norm.")}
    torch.save(torchgeo, tmp_path / "torchgeo.pth")
    converted(tmp_path / "torchgeo.pth", tmp_path / "plain", *GIVEN, "--verify")
    np.testing.assert_array_equal(load_encoder(tmp_path / "plain").norm.scale[...], np.ones(64))


def test_from_pixels_to_vectors(tmp_path, converted):
    """What preprocessing makes of an image is what the convolution sees of it."""
    model = dofa((0.665, 0.56, 0.49))
    torch.save(model.state_dict(), tmp_path / "dofa.pth")
    given = ["--heads", "4", "--wavelengths", "0.665", "0.56", "0.49", "--mean", *["0.3"] * 3]
    converted(tmp_path / "dofa.pth", tmp_path / "out", *given)
    encoder = load_encoder(tmp_path / "out")
    how = encoder.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    keep = jnp.asarray([[0, 1, 3, 4, 9], [0, 2, 8, 14, 15]], jnp.int32)
    moved = np.stack([resize(image, 32, how) for image in pixels])
    ours = cls_vectors(encoder, jnp.asarray(moved), keep)
    normalized = (pixels / 255 - np.array(how.mean)) / np.array(how.std)
    theirs = pytorch.tokens(model, jnp.asarray(normalized, jnp.float32), keep)[:, 0]
    assert pytorch.relative(ours, theirs) < 1e-5
    missing = np.zeros((32, 32), bool)
    missing[15, 7] = True  # row 16, column 8 of what is seen: of another patch
    np.testing.assert_array_equal(np.argwhere(resize_missing(missing, 32, how)), [[16, 8]])
    assert main([str(tmp_path / "out"), str(tmp_path / "back.pth"), "--to", "facebook"]) == 1


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        ({}, [], "give them in micrometres"),
        ({}, ["--wavelengths", "0.6", "-1"], "--wavelengths must be micrometres"),
        ({}, ["--wavelengths", "665", "560"], "look like nanometres"),
        ({"patch_embed.fclayer.w1.bias": None}, GIVEN[2:], "lacks patch_embed.fclayer.w1.bias"),
        ({"patch_embed.fclayer.w1.bias": torch.zeros(3)}, GIVEN[2:], "do not fit together"),
    ],
)
def test_what_cannot_be_made(tmp_path, capsys, change, given, said):
    state = {name: t for name, t in (dofa().state_dict() | change).items() if t is not None}
    torch.save(state, tmp_path / "dofa.pth")
    assert main([str(tmp_path / "dofa.pth"), str(tmp_path / "out"), "--heads", "4", *given]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wavelengths_of_an_embedding_of_its_own(tmp_path, capsys, mae):
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "out"), *GIVEN]) == 1
    assert "--wavelengths is for DOFA" in capsys.readouterr().err
