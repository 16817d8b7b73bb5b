"""Every kind of source, through the command line: PyTorch writes the file, both models run."""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from conversion.__main__ import main
from jist.models import Preprocessing, load_encoder, load_mae

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
import pytorch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
LOSS = nnx.jit(lambda mae, images, keep: mae.loss(images, keep))


def assert_agrees(directory, model, images, keep):
    ours = pytorch.run(load_encoder(directory), images, keep)
    assert pytorch.relative(ours, pytorch.tokens(model, images, keep)) < 1e-5


@pytest.mark.parametrize("kind", checkpoints.FACEBOOK)
def test_facebook_checkpoint(kind, mae, images, keep, tmp_path, capsys):
    torch.save(checkpoints.FACEBOOK[kind](mae), tmp_path / "mae.pth")
    status = main([str(tmp_path / "mae.pth"), str(tmp_path / "out"), "--heads", "4"])
    assert status == 0, capsys.readouterr().err
    assert_agrees(tmp_path / "out", mae, images, keep)
    assert (tmp_path / "out/decoder.safetensors").exists() == (kind in ("wrapper", "bare"))
    said = capsys.readouterr().out
    assert ("fine-tuned classifier" in said) == (kind in ("fine-tuned", "averaging"))
    assert ("linear probe" in said) == (kind == "linear probe")
    assert ("fc_norm" in said) == (kind == "averaging")


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_of_facebooks_own_training(zipped, mae, images, keep, tmp_path, capsys):
    # As `misc.save_model` writes it: the arguments of the command line are there too.
    optimizer = torch.optim.AdamW(mae.parameters(), lr=1e-3, betas=(0.9, 0.95))
    content = {
        "model": mae.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 799,
        "scaler": {"scale": 65536.0, "growth_tracker": 3},
        "args": argparse.Namespace(lr=None, blr=1e-3, model="mae_vit_base_patch16", resume=""),
    }
    file = tmp_path / "checkpoint-799.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    status = main([str(file), str(tmp_path / "out"), "--heads", "4"])
    assert status == 0, capsys.readouterr().err
    assert_agrees(tmp_path / "out", mae, images, keep)


def test_pixels_can_be_normalised_by_other_numbers_than_imagenets(mae, tmp_path, capsys):
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    own = ["--mean", "0.1", "0.2", "0", "--std", "0.3", "0.4", "2"]
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "out"), "--heads", "4", *own]) == 0
    assert "less 0.1, 0.2, 0, over 0.3, 0.4, 2, bicubic; --mean and --std as given" in (
        capsys.readouterr().out
    )
    preprocessing = load_encoder(tmp_path / "out").preprocessing
    assert preprocessing.mean == (0.1, 0.2, 0.0)
    assert preprocessing.std == (0.3, 0.4, 2.0)


def test_file_of_the_format_before_zip(mae, images, keep, tmp_path):
    # Old checkpoints are about; they cannot be mapped into memory.
    torch.save(mae.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert main([str(tmp_path / "old.pth"), str(tmp_path / "out"), "--heads", "4"]) == 0
    assert_agrees(tmp_path / "out", mae, images, keep)


def test_safetensors_with_facebook_names(mae, images, keep, tmp_path):
    save_file(mae.state_dict(), tmp_path / "mae.safetensors")
    assert main([str(tmp_path / "mae.safetensors"), str(tmp_path / "out"), "--heads", "4"]) == 0
    assert_agrees(tmp_path / "out", mae, images, keep)


def test_timm_directory_says_how_its_images_are_normalised(mae, tmp_path, capsys):
    (tmp_path / "timm").mkdir()
    save_file(mae.state_dict(), tmp_path / "timm" / "model.safetensors")
    wanted = {"mean": [0.5, 0.5, 0.5], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
    config = {"architecture": "vit_base_patch16_224", "pretrained_cfg": wanted | {"crop_pct": 0.9}}
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    assert main([str(tmp_path / "timm"), str(tmp_path / "out"), "--heads", "4"]) == 0
    assert "pixels   less 0.5, 0.5, 0.5, over 0.4, 0.5, 0.6, bilinear" in capsys.readouterr().out
    preprocessing = load_encoder(tmp_path / "out").preprocessing
    assert preprocessing == Preprocessing((0.5, 0.5, 0.5), (0.4, 0.5, 0.6), "bilinear")
    file = tmp_path / "timm" / "model.safetensors"
    assert main([str(file), str(tmp_path / "beside"), "--heads", "4"]) == 0
    assert "0.6, bilinear; as its files say" in capsys.readouterr().out
    # Hugging Face's names want Hugging Face's config.
    assert main([str(tmp_path / "out"), str(tmp_path / "hf"), "--to", "huggingface"]) == 0
    written = json.loads((tmp_path / "hf/config.json").read_text())
    assert (written["model_type"], written["num_attention_heads"]) == ("vit_mae", 4)
    alone = file.rename(tmp_path / "alone.safetensors")
    assert main([str(alone), str(tmp_path / "o"), "--heads", "4"]) == 0
    assert "bicubic; assumed: no file beside it says how" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind",
    ["single", "sharded", "without decoder", "bin", "sharded bin", "hub names", "memory names"],
)
def test_huggingface_directory(kind, hf_mae, images, keep, tmp_path, capsys):
    checkpoints.write_directory(kind, hf_mae, tmp_path / "hf")
    status = main([str(tmp_path / "hf"), str(tmp_path / "out")])
    assert status == 0, capsys.readouterr().err
    encoder = load_encoder(tmp_path / "out")
    assert encoder.config.layer_norm_eps == 1e-5
    assert_agrees(tmp_path / "out", hf_mae, images, keep)
    if kind != "without decoder":
        mae = load_mae(tmp_path / "out")
        assert mae.normalize_pixels
        hf_mae.vit.embeddings.config.mask_ratio = 0.5
        with torch.no_grad():
            theirs = hf_mae(pytorch.channels_first(images), noise=pytorch.noise(keep))
        assert pytorch.relative(pytorch.run(mae, images, keep), theirs.logits) < 1e-5
        assert float(LOSS(mae, images, keep)) == pytest.approx(float(theirs.loss), rel=1e-5)


def test_huggingface_file_alone(hf_mae, images, keep, tmp_path):
    # The sizes follow from the tensors alone; the epsilon has to be given.
    save_file(hf_mae.state_dict(), tmp_path / "weights.safetensors")
    options = ["--heads", "4", "--layer-norm-eps", "1e-5"]
    assert main([str(tmp_path / "weights.safetensors"), str(tmp_path / "out"), *options]) == 0
    assert_agrees(tmp_path / "out", hf_mae, images, keep)


def test_hub_id_from_the_cache(hf_mae, images, keep, tmp_path):
    # The layout of a cache, and a process of its own: the hub's settings are read on import.
    pytest.importorskip("huggingface_hub", reason="resolves ids")
    repository = tmp_path / "home/hub/models--someone--vit-mae-small"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    hf_mae.save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("a" * 40)
    command = [sys.executable, "-m", "conversion", "someone/vit-mae-small", str(tmp_path / "out")]
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert_agrees(tmp_path / "out", hf_mae, images, keep)
    source = json.loads((tmp_path / "out/config.json").read_text())["source"]
    assert source["name"] == "someone/vit-mae-small"


@pytest.mark.parametrize("patch_size", [2, 4])
def test_encoder_far_from_the_published_sizes(patch_size, tmp_path):
    model = checkpoints.mae(
        image_size=32, patch_size=patch_size, dim=64, depth=4, heads=4, mlp_dim=256
    )
    torch.save(model.state_dict(), tmp_path / "small.pth")
    assert main([str(tmp_path / "small.pth"), str(tmp_path / "out"), "--heads", "4"]) == 0
    config = load_encoder(tmp_path / "out").config
    assert (config.image_size, config.patch_size, config.dim, config.depth) == (
        32, patch_size, 64, 4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dim", "heads", "mlp_dim", "patch_size"), [(1024, 16, 4096, 16), (1280, 16, 5120, 14)]
)
def test_large_and_huge_at_reduced_depth(dim, heads, mlp_dim, patch_size, tmp_path):
    # Heads come from the width; a grid of 4 keeps the test short.
    sizes = {"image_size": 4 * patch_size, "patch_size": patch_size, "dim": dim, "depth": 1}
    model = checkpoints.mae(**sizes, heads=heads, mlp_dim=mlp_dim)
    torch.save({"model": model.state_dict()}, tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "out")]) == 0
    assert load_encoder(tmp_path / "out").config.heads == heads
    side = 4 * patch_size
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, side, side, 3)), jnp.float32)
    assert_agrees(tmp_path / "out", model, images, jnp.asarray([[0, 3, 6, 9, 15]], jnp.int32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("file", ["mae.pth", "mae.safetensors"])
def test_half_precision_is_converted_and_reported(dtype, file, mae, tmp_path, capsys):
    state = {k: v.to(getattr(torch, dtype)) for k, v in mae.state_dict().items()}
    save = torch.save if file.endswith(".pth") else save_file
    save(state, tmp_path / file)
    assert main([str(tmp_path / file), str(tmp_path / "out"), "--heads", "4"]) == 0
    assert f"tensors in {dtype} are converted to float32" in capsys.readouterr().out
    stored = load_file(tmp_path / "out/encoder.safetensors")["cls"]
    assert stored.dtype == "float32"
    assert (stored == state["cls_token"].float().numpy()[0, 0]).all()


def test_epsilon_can_be_overridden(mae, tmp_path):
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    options = ["--heads", "4", "--layer-norm-eps", "1e-3"]
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "out"), *options]) == 0
    assert load_encoder(tmp_path / "out").config.layer_norm_eps == 1e-3


def test_config_tells_the_source(mae, tmp_path):
    torch.save({"model": mae.state_dict()}, tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "out"), "--heads", "4"]) == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["encoder"] == {**checkpoints.SMALL, "layer_norm_eps": 1e-6}
    assert config["decoder"] == {
        "dim": 32, "depth": 1, "heads": None, "mlp_dim": 64, "normalize_pixels": True,
    }  # fmt: skip
    assert set(config["preprocessing"]) == {"mean", "std", "interpolation"}
    source = config["source"]
    expected = hashlib.sha256((tmp_path / "mae.pth").read_bytes()).hexdigest()
    assert source["sha256"] == expected
    assert (source["format"], source["files"]) == ("facebook", ["mae.pth"])
    assert source["conversion_version"]


def test_decoder_heads_are_asked_for_when_they_matter(mae, images, keep, tmp_path, capsys):
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "a"), "--heads", "4"]) == 0
    assert "--decoder-heads" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--decoder-heads"):
        load_mae(tmp_path / "a")
    options = ["--heads", "4", "--decoder-heads", str(checkpoints.DECODER[2])]
    assert main([str(tmp_path / "mae.pth"), str(tmp_path / "b"), *options]) == 0
    with torch.no_grad():
        kept = pytorch.indices(keep)
        theirs = mae.decode(mae.encode(pytorch.channels_first(images), kept), kept)
    assert pytorch.relative(pytorch.run(load_mae(tmp_path / "b"), images, keep), theirs) < 1e-5


def test_visualisation_variant_is_warned_of(mae, tmp_path, capsys):
    torch.save({"model": mae.state_dict()}, tmp_path / "mae_visualize_vit_small.pth")
    source = str(tmp_path / "mae_visualize_vit_small.pth")
    assert main([source, str(tmp_path / "out"), "--heads", "4"]) == 0
    assert "warning: mae_visualize_*" in capsys.readouterr().out
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["decoder"]["normalize_pixels"] is False
