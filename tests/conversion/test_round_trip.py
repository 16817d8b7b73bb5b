"""Export: bit for bit on every tensor, and readable by the library whose names it uses."""

import collections
import json

import numpy as np
import pytest

from conversion.__main__ import main
from conversion.names import VIT_NAMINGS
from conversion.resnet_names import RESNET_NAMINGS
from jist.models import DecoderConfig, load_mae, save_encoder, save_mae
from jist.models.shipped import locate

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
import pytorch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

HEADS = ["--heads", "4", "--decoder-heads", str(checkpoints.DECODER[2])]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("kind", checkpoints.FACEBOOK)
def test_facebook(kind, mae, tmp_path):
    content = checkpoints.FACEBOOK[kind](mae)
    torch.save(content, tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "jist"), *HEADS]) == 0
    assert main([str(tmp_path / "jist"), str(tmp_path / "back.pth"), "--to", "facebook"]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    state = content.get("model", content.get("state_dict", content))
    assert_same(back, {name.removeprefix("module."): tensor for name, tensor in state.items()})


@pytest.mark.parametrize("kind", ["single", "sharded", "without decoder", "hub names", "bin"])
def test_huggingface(kind, hf_mae, tmp_path):
    checkpoints.write_directory(kind, hf_mae, tmp_path / "hf")
    assert main([str(tmp_path / "hf"), str(tmp_path / "jist")]) == 0
    assert main([str(tmp_path / "jist"), str(tmp_path / "back"), "--to", "huggingface"]) == 0
    theirs = {}
    for file in (tmp_path / "hf").glob("*.safetensors"):
        theirs |= load_file(file)
    for file in (tmp_path / "hf").glob("*.bin"):
        theirs |= torch.load(file, weights_only=True)
    assert_same(load_file(tmp_path / "back/model.safetensors"), theirs)
    assert json.loads((tmp_path / "back/config.json").read_text()) == json.loads(
        (tmp_path / "hf/config.json").read_text()
    )


def test_an_encoder_stored_in_float16_goes_to_huggingface(mae, tmp_path):
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "jist"), *HEADS]) == 0
    encoder = load_mae(tmp_path / "jist").encoder
    save_encoder(encoder, tmp_path / "half", stored_dtype=np.float16)
    assert main([str(tmp_path / "half"), str(tmp_path / "hf"), "--to", "huggingface"]) == 0
    assert main([str(tmp_path / "hf"), str(tmp_path / "again")]) == 0
    stored = load_file(tmp_path / "half/encoder.safetensors")
    assert {array.dtype for array in stored.values()} == {torch.float16}
    again = load_file(tmp_path / "again/encoder.safetensors")
    assert_same(again, {name: array.float() for name, array in stored.items()})


def test_what_an_option_overruled_goes_back_as_overruled(hf_mae, tmp_path):
    checkpoints.write_directory("single", hf_mae, tmp_path / "hf")
    said = json.loads((tmp_path / "hf/config.json").read_text())
    options = ["--heads", "8", "--layer-norm-eps", "1e-6"]
    assert main([str(tmp_path / "hf"), str(tmp_path / "jist"), *options]) == 0
    assert main([str(tmp_path / "jist"), str(tmp_path / "back"), "--to", "huggingface"]) == 0
    back = json.loads((tmp_path / "back/config.json").read_text())
    assert back == said | {"num_attention_heads": 8, "layer_norm_eps": 1e-6}


def test_pixels_go_back_as_an_option_said_or_as_they_came(hf_mae, tmp_path):
    checkpoints.write_directory("single", hf_mae, tmp_path / "hf")
    came = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2, "note": "x"}
    (tmp_path / "hf/preprocessor_config.json").write_text(json.dumps(came))

    def returned(name, *options):
        assert main([str(tmp_path / "hf"), str(tmp_path / name), *options]) == 0
        back = tmp_path / f"{name}-back"
        assert main([str(tmp_path / name), str(back), "--to", "huggingface"]) == 0
        return json.loads((back / "preprocessor_config.json").read_text())

    assert returned("same") == came
    found = returned("other", "--mean", "0.1", "0.2", "0.3", "--resize", "squash")
    assert found["image_mean"] == [0.1, 0.2, 0.3]
    assert (found["image_std"], found["resample"]) == (came["image_std"], 2)
    assert found["size"] == {"height": 32, "width": 32}
    assert "do_center_crop" not in found


def test_facebook_to_huggingface_runs_in_transformers(mae, images, keep, tmp_path):
    transformers = pytest.importorskip("transformers", reason="reads what is written")
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "jist"), *HEADS]) == 0
    assert main([str(tmp_path / "jist"), str(tmp_path / "hf"), "--to", "huggingface"]) == 0
    model, loaded = transformers.ViTMAEForPreTraining.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    theirs = pytorch.tokens(model.eval(), images, keep)
    assert pytorch.relative(theirs, pytorch.tokens(mae, images, keep)) < 1e-5
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]
    # Converted into jist again: the same bits as from the first conversion.
    assert main([str(tmp_path / "hf"), str(tmp_path / "again")]) == 0
    for part in ("encoder", "decoder"):
        file = f"{part}.safetensors"
        assert_same(load_file(tmp_path / "again" / file), load_file(tmp_path / "jist" / file))


def test_own_encoders_go_to_both(mae, tmp_path):
    # An encoder trained by jist has no source whose names could be recorded.
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "jist"), *HEADS]) == 0
    model = load_mae(tmp_path / "jist")
    save_mae(model, tmp_path / "mae")
    save_encoder(model.encoder, tmp_path / "encoder")
    for name in ("mae", "encoder"):
        for to in ("facebook", "huggingface"):
            out = tmp_path / f"{name}-{to}"
            assert main([str(tmp_path / name), str(out), "--to", to]) == 0
            options = [] if to == "huggingface" else HEADS
            assert main([str(out), str(tmp_path / f"{name}-{to}-again"), *options]) == 0
    assert load_mae(tmp_path / "mae-facebook-again").decoder.config == DecoderConfig(32, 1, 4, 64)
    stored = load_file(tmp_path / "mae/encoder.safetensors")
    for name in ("mae-facebook", "mae-huggingface", "encoder-facebook", "encoder-huggingface"):
        assert_same(load_file(tmp_path / f"{name}-again/encoder.safetensors"), stored)


def test_bad_ways_back(mae, tmp_path, capsys):
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    jist = tmp_path / "jist"
    assert main([str(tmp_path / "mae.pth"), str(jist), *HEADS]) == 0
    capsys.readouterr()

    def refused(source, out, to):
        assert main([str(source), str(out), "--to", to]) == 1
        return capsys.readouterr().err

    assert "exists" in refused(jist, tmp_path / "mae.pth", "facebook")
    assert "exists" in refused(jist, jist, "huggingface")
    assert "--to allows facebook, huggingface" in refused(jist, tmp_path / "o", "torchvision")
    assert "is missing" in refused(tmp_path / "absent", tmp_path / "o", "facebook")
    file = jist / "decoder.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "damaged" in refused(jist, tmp_path / "o", "facebook")
    assert not (tmp_path / "o").exists()
    for given in (str(jist), "mae-nano-cifar10"):
        assert main([given, str(tmp_path / "out")]) == 1
        assert "is a jist directory already; with --to" in capsys.readouterr().err


def test_a_shipped_encoder_leaves_by_its_name(tmp_path):
    out = tmp_path / "nano"
    assert main(["mae-nano-cifar10", str(out), "--to", "huggingface"]) == 0
    assert main([str(out), str(tmp_path / "again"), "--heads", "3"]) == 0
    stored = load_file(locate("mae-nano-cifar10") / "encoder.safetensors")
    found = load_file(tmp_path / "again" / "encoder.safetensors")
    assert_same(found, {name: of.float() for name, of in stored.items()})


@pytest.mark.parametrize("naming", [*VIT_NAMINGS, *RESNET_NAMINGS], ids=lambda n: n.name)
def test_no_name_means_two_things(naming):
    for part in ("encoder", "decoder"):
        rules = naming.rules(part, depth=3)
        ours = [rule.jist for rule in rules]
        theirs = collections.Counter(name for rule in rules for name in rule.source)
        assert len(set(ours)) == len(ours)
        # A LayerScale multiplies the kernel and the bias before it.
        twice = {name for name, times in theirs.items() if times > 1}
        assert all(name.endswith(("gamma", "lambda1")) for name in twice)
        assert set(theirs.values()) <= {1, 2}
