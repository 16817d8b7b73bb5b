"""DINOv2: blocks with a LayerScale, which conversion multiplies into the layer before it."""

import jax.numpy as jnp
import numpy as np
import pytest

from conversion.__main__ import main
from jist.features import cls_vectors
from jist.models import load_encoder

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402


def test_facebooks_names(tmp_path, capsys, converted):
    model = checkpoints.mae(**checkpoints.SMALL, scaled=True)
    state = model.state_dict() | {"mask_token": torch.zeros(1, 64)}
    torch.save(state, tmp_path / "dinov2.pth")
    said = converted(tmp_path / "dinov2.pth", tmp_path / "out", "--heads", "4", "--verify")
    assert "dinov2 names" in said
    torch.save(state | {"register_tokens": torch.zeros(1, 4, 64)}, tmp_path / "registers.pth")
    assert main([str(tmp_path / "registers.pth"), str(tmp_path / "no")]) == 1
    assert "has register tokens (register_tokens), which the encoder" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Dinov2Model", "Dinov2ForImageClassification"])
def test_hugging_faces_names_there_and_back(kind, tmp_path, converted):
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
    assert "not followed" not in converted(tmp_path / "hf", tmp_path / "out", "--verify")
    converted(tmp_path / "out", tmp_path / "back", "--to", "huggingface")
    converted(tmp_path / "back", tmp_path / "again", "--verify")
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    keep = jnp.asarray([[0, 3, 7, 9], [1, 2, 14, 15]], jnp.int32)
    found = [cls_vectors(load_encoder(tmp_path / of), pixels, keep) for of in ("out", "again")]
    np.testing.assert_array_equal(*found)
