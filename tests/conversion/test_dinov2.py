"""DINOv2: blocks with a LayerScale, which conversion multiplies into the layer before it."""

import jax.numpy as jnp
import numpy as np
import pytest

from conversion.__main__ import main
from jist.features import cls_vectors
from jist.models import load_encoder

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402


def test_facebooks_names(tmp_path, capsys):
    model = checkpoints.mae(**checkpoints.SMALL, scaled=True)
    state = model.state_dict() | {"mask_token": torch.zeros(1, 64)}
    torch.save(state, tmp_path / "dinov2.pth")
    arguments = [str(tmp_path / "dinov2.pth"), str(tmp_path / "out"), "--heads", "4", "--verify"]
    status = main(arguments)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "dinov2 names" in said.out
    torch.save(state | {"register_tokens": torch.zeros(1, 4, 64)}, tmp_path / "registers.pth")
    assert main([str(tmp_path / "registers.pth"), str(tmp_path / "no")]) == 1
    assert "has register tokens (register_tokens), which the encoder" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Dinov2Model", "Dinov2ForImageClassification"])
def test_hugging_faces_names_there_and_back(kind, tmp_path, capsys):
    """What comes back is a plain ViT without a LayerScale, and the same function."""
    transformers = pytest.importorskip("transformers", reason="builds the Hugging Face sources")
    transformers.logging.disable_progress_bar()
    config = transformers.Dinov2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        layerscale_value=0.3,
    )
    model = checkpoints.randomize(getattr(transformers, kind)(config))
    model.save_pretrained(tmp_path / "hf")
    status = main([str(tmp_path / "hf"), str(tmp_path / "out"), "--verify"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "not followed" not in said.out
    back = [str(tmp_path / "out"), str(tmp_path / "back"), "--to", "huggingface"]
    assert main(back) == 0
    assert main([str(tmp_path / "back"), str(tmp_path / "again"), "--verify"]) == 0
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    keep = jnp.asarray([[0, 3, 7, 9], [1, 2, 14, 15]], jnp.int32)
    found = [cls_vectors(load_encoder(tmp_path / of), pixels, keep) for of in ("out", "again")]
    np.testing.assert_array_equal(*found)
