"""ResNet-50 v1.5 from each of its sources, at full size: there is no other."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from conversion.__main__ import main
from jist.models import load_encoder, load_resnet

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
import pytorch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from conversion import reference, verify  # noqa: E402

# Convolutions take far longer to compute where they are not optimised.
pytestmark = pytest.mark.usefixtures("fully_optimised")


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(3).normal(size=(2, 64, 64, 3)), jnp.float32)


@pytest.fixture(scope="module")
def resnet():
    return checkpoints.randomize(reference.ResNet(classes=10))


def nvidia_names(state):
    """`layers.0.1` for `layer1.1`, and the prefix of distributed training."""
    names = {}
    for name, tensor in state.items():
        for stage in (1, 2, 3, 4):
            name = name.replace(f"layer{stage}.", f"layers.{stage - 1}.", 1)
        names[f"module.{name}"] = tensor
    return {"state_dict": names}


def test_resnet_of_torchvision_and_nvidia(resnet, images, tmp_path, converted):
    state = resnet.state_dict()
    for kind, content in (("torchvision", state), ("nvidia", nvidia_names(state))):
        torch.save(content, tmp_path / "r.pth")
        assert f"{kind} names" in converted(tmp_path / "r.pth", tmp_path / kind)
    with torch.no_grad():
        theirs = resnet.features(pytorch.channels_first(images))
    ours = nnx.jit(lambda model, x: model(x))(load_resnet(tmp_path / "torchvision"), images)
    assert ours.shape == (2, 2048)
    assert pytorch.relative(ours, theirs) < 1e-4
    files = [tmp_path / kind / "encoder.safetensors" for kind in ("torchvision", "nvidia")]
    assert files[0].read_bytes() == files[1].read_bytes()

    back = tmp_path / "back.pth"
    assert main([str(tmp_path / "torchvision"), str(back), "--to", "torchvision"]) == 0
    returned = torch.load(back, weights_only=True)["model"]
    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[name], state[name]) for name in state)


def test_resnet_of_huggingface(tmp_path, capsys, monkeypatch, converted):
    monkeypatch.setattr(verify, "RESNET_SIDE", 64)
    transformers = pytest.importorskip("transformers", reason="builds the source")
    model = checkpoints.randomize(transformers.ResNetModel(transformers.ResNetConfig()))
    model.save_pretrained(tmp_path / "hf")
    preprocessor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3}
    (tmp_path / "hf/preprocessor_config.json").write_text(json.dumps(preprocessor))
    said = converted(tmp_path / "hf", tmp_path / "out", "--verify")
    assert "features" in said
    assert said.count(" ok") == 1
    loaded = load_resnet(tmp_path / "out")
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert loaded.preprocessing.interpolation == "bicubic"
    with pytest.raises(ValueError, match="load_resnet"):
        load_encoder(tmp_path / "out")
    assert main([str(tmp_path / "out"), str(tmp_path / "back"), "--to", "huggingface"]) == 0
    back = load_file(tmp_path / "back/model.safetensors")
    theirs = load_file(tmp_path / "hf/model.safetensors")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)

    # Version 1 has the same tensors; only the config distinguishes the two.
    config = json.loads((tmp_path / "hf/config.json").read_text())
    config["downsample_in_bottleneck"] = True
    (tmp_path / "hf/config.json").write_text(json.dumps(config))
    assert main([str(tmp_path / "hf"), str(tmp_path / "other")]) == 1
    assert "downsample_in_bottleneck=True" in capsys.readouterr().err


def test_other_depths_are_refused(resnet, tmp_path, capsys):
    state = {k: v for k, v in resnet.state_dict().items() if not k.startswith("layer4.2")}
    torch.save(state, tmp_path / "r.pth")
    assert main([str(tmp_path / "r.pth"), str(tmp_path / "out")]) == 1
    assert "layer4.2" in capsys.readouterr().err
