"""A failed conversion gives a one-line reason, and leaves nothing behind."""

import argparse
import fractions
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from conversion.__main__ import main

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def convert(tmp_path, capsys):
    """Runs the command, expects it to fail, and returns the one line it says."""

    def run(source, *options, status=1):
        before = sorted(tmp_path.rglob("*"))
        assert main([str(source), str(tmp_path / "out"), *options]) == status
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def test_truncated_checkpoints(convert, mae, tmp_path):
    torch.save({"model": mae.state_dict()}, tmp_path / "mae.pth")
    save_file(mae.state_dict(), tmp_path / "mae.safetensors")
    torch.save(mae.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("mae.pth", "mae.safetensors", "old.pth"):
        content = (tmp_path / name).read_bytes()
        for length in (len(content) // 2, len(content) - 7, 100):
            (tmp_path / name).write_bytes(content[:length])
            assert "damaged" in convert(tmp_path / name, "--heads", "4")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><title>404</title></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"just some text", "damaged, truncated or no PyTorch file"),
    ],
)
def test_files_that_are_no_weights(content, said, convert, tmp_path):
    for name in ("mae.pth", "mae.safetensors"):
        (tmp_path / name).write_bytes(content)
        answer = convert(tmp_path / name)
        assert said in answer or (name.endswith("safetensors") and "damaged" in answer)


@pytest.mark.parametrize("allowed", [dict, argparse.Namespace])
def test_pickle_that_holds_more_than_tensors_is_refused(allowed, convert, mae, tmp_path):
    content = {"model": mae.state_dict(), "args": allowed(lr=fractions.Fraction(1, 3))}
    torch.save(content, tmp_path / "mae.pth")
    said = convert(tmp_path / "mae.pth", "--heads", "4")
    assert "fractions.Fraction" in said
    assert "refused" in said
    # The advice in the message gives a file that can be converted.
    advice = said.split("to a new file, with ")[1]
    subprocess.run([sys.executable, "-c", f"import torch; {advice}"], cwd=tmp_path, check=True)
    options = [str(tmp_path / "weights.pth"), str(tmp_path / "taken"), "--heads", "4"]
    assert main(options) == 0


class Payload:
    """Would leave a trace, were it unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_pickle_that_runs_code_does_not_run(convert, mae, tmp_path):
    trace = tmp_path / "trace"
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        content = {"model": mae.state_dict(), "other": Payload(trace)}
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert "refused" in convert(tmp_path / name)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text("{}")
    torch.save(content, tmp_path / "hf/pytorch_model.bin")
    assert "refused" in convert(tmp_path / "hf")
    assert not trace.exists()


def test_wrong_architecture_names_both_sides(convert, tmp_path):
    torch.save({"features.0.weight": torch.ones(3), "b": torch.ones(3)}, tmp_path / "vgg.pth")
    said = convert(tmp_path / "vgg.pth")
    assert "patch_embed.proj.weight" in said
    assert "features.0.weight" in said


def test_missing_and_unexpected_tensors_are_named(convert, mae, tmp_path):
    state = checkpoints.encoder_state(mae)
    del state["blocks.1.attn.qkv.bias"]
    torch.save(state | {"dist_token": torch.ones(1, 1, 64)}, tmp_path / "a.pth")
    said = convert(tmp_path / "a.pth", "--heads", "4")
    assert "missing: blocks.1.attn.qkv.bias" in said
    assert "unexpected: dist_token" in said


def test_misshapen_tensors_are_named(convert, mae, tmp_path):
    state = checkpoints.encoder_state(mae) | {"blocks.1.mlp.fc2.weight": torch.ones(64, 127)}
    torch.save(state, tmp_path / "a.pth")
    said = convert(tmp_path / "a.pth", "--heads", "4")
    assert "blocks.1.mlp.fc2.weight is [64, 127], expected [64, 128]" in said


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("pos_embed", (1, 16, 64), "square grid"),
        ("pos_embed", (17, 64), "square grid"),
        ("patch_embed.proj.weight", (64, 3, 8, 4), "square patches"),
    ],
)
def test_sizes_that_do_not_fit_an_image(name, shape, said, convert, mae, tmp_path):
    torch.save(checkpoints.encoder_state(mae) | {name: torch.ones(shape)}, tmp_path / "a.pth")
    assert said in convert(tmp_path / "a.pth", "--heads", "4")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite(bad, convert, mae, tmp_path):
    state = {k: v.clone() for k, v in checkpoints.encoder_state(mae).items()}
    state["blocks.0.norm2.weight"][3] = bad
    torch.save(state, tmp_path / "a.pth")
    said = convert(tmp_path / "a.pth", "--heads", "4")
    assert "blocks.0.norm2.weight holds 1 numbers" in said


def test_number_of_heads_is_needed_and_said_why(convert, mae, tmp_path):
    torch.save(mae.state_dict(), tmp_path / "a.pth")
    said = convert(tmp_path / "a.pth")
    assert "--heads" in said
    assert "no tensor shows" in said
    assert "heads=5" in convert(tmp_path / "a.pth", "--heads", "5")
    assert "heads must be positive" in convert(tmp_path / "a.pth", "--heads", "0")


def test_pixels_are_normalised_by_numbers_that_can_be(convert, mae, tmp_path):
    torch.save(mae.state_dict(), tmp_path / "a.pth")
    for bad in ("0", "-1", "nan"):
        said = convert(tmp_path / "a.pth", "--heads", "4", "--std", "1", bad, "1")
        assert "std must be positive, got (1.0, " in said


def test_no_state_dict(convert, tmp_path):
    torch.save({"model": [torch.ones(3)], "epoch": 3}, tmp_path / "a.pth")
    said = convert(tmp_path / "a.pth")
    assert "found epoch, model" in said
    torch.save(torch.ones(3), tmp_path / "a.pth")
    assert "no state dict" in convert(tmp_path / "a.pth")


def test_no_such_source(convert, tmp_path):
    assert "no such file" in convert(tmp_path / "absent.pth")


def test_config_that_contradicts_the_tensors(convert, hf_mae, tmp_path):
    hf_mae.save_pretrained(tmp_path / "hf")
    path = tmp_path / "hf/config.json"
    good = json.loads(path.read_text())
    for wrong, said in (
        ({"num_hidden_layers": 3}, "num_hidden_layers=3, the tensors say 2"),
        ({"image_size": 64}, "image_size=64, the tensors say 32"),
        ({"hidden_act": "relu"}, "'relu'"),
    ):
        path.write_text(json.dumps(good | wrong))
        assert said in convert(tmp_path / "hf")
    path.write_text("{")
    assert "no JSON" in convert(tmp_path / "hf")
    path.unlink()
    assert "no config.json" in convert(tmp_path / "hf")


def test_index_does_not_lead_out_of_its_directory(convert, hf_mae, tmp_path):
    hf_mae.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf/model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (tmp_path / "hf/model.safetensors.index.json").write_text(json.dumps(index))
    assert "not there" in convert(tmp_path / "hf")


def test_destination_that_exists(mae, tmp_path, capsys):
    torch.save(checkpoints.encoder_state(mae), tmp_path / "a.pth")
    torch.save(checkpoints.encoder_state(mae) | checkpoints.HEAD, tmp_path / "b.pth")
    out = tmp_path / "out"
    assert main([str(tmp_path / "b.pth"), str(out), "--heads", "4"]) == 0
    capsys.readouterr()
    assert main([str(tmp_path / "a.pth"), str(out), "--heads", "4"]) == 1
    assert "exists" in capsys.readouterr().err
    assert (out / "extra.safetensors").exists()
    assert main([str(tmp_path / "a.pth"), str(out), "--heads", "4", "--overwrite"]) == 0
    assert not (out / "extra.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_overwrite_spares_a_directory_of_another_kind(mae, tmp_path, capsys):
    torch.save(mae.state_dict(), tmp_path / "a.pth")
    assert main([str(tmp_path / "a.pth"), str(tmp_path / "jist"), "--heads", "4"]) == 0
    assert main([str(tmp_path / "jist"), str(tmp_path / "hf"), "--to", "huggingface"]) == 0
    before = (tmp_path / "hf/model.safetensors").read_bytes()
    hf = str(tmp_path / "hf")
    assert main([hf, hf, "--overwrite"]) == 1
    assert "is not replaced: its config.json is of another kind" in capsys.readouterr().err
    assert (tmp_path / "hf/model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_overwrite_spares_a_directory_with_other_files(convert, mae, tmp_path):
    torch.save(checkpoints.encoder_state(mae), tmp_path / "a.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("three years")
    assert "not replaced" in convert(tmp_path / "a.pth", "--heads", "4", "--overwrite")
    assert (tmp_path / "out/thesis.tex").read_text() == "three years"


def test_without_pytorch(convert, mae, tmp_path, monkeypatch):
    torch.save(checkpoints.encoder_state(mae), tmp_path / "a.pth")
    save_file(checkpoints.encoder_state(mae), tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert ".[convert]" in convert(tmp_path / "a.pth", "--heads", "4")
    assert ".[convert]" in convert(tmp_path / "a.safetensors", "--heads", "4", "--verify")
    # safetensors need no PyTorch.
    assert main([str(tmp_path / "a.safetensors"), str(tmp_path / "out"), "--heads", "4"]) == 0


def test_usage_errors_exit_with_2(tmp_path):
    for arguments in (["only-one"], ["a", "b", "--heads", "many"], ["a", "b", "--to", "keras"]):
        command = [sys.executable, "-m", "conversion", *arguments]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert result.returncode == 2
    assert main(["a", "b", "--to", "facebook", "--verify"]) == 2
    assert main(["a", "b", "--to", "facebook", "--mean", "0", "0", "0"]) == 2
    assert main(["a", "b", "--to", "facebook", "--heads", "0"]) == 2


def test_traceback_only_on_request(tmp_path, capsys):
    assert main([str(tmp_path / "absent.pth"), str(tmp_path / "out")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main([str(tmp_path / "absent.pth"), str(tmp_path / "out"), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_random_damage_never_ends_in_a_traceback(mae, tmp_path, capsys):
    # Whatever byte is wrong: converted (in the numbers) or refused, never anything else.
    torch.save(checkpoints.encoder_state(mae), tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    rng = np.random.default_rng(0)
    for trial in range(12):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 30):
            damaged[place] = rng.integers(256)
        (tmp_path / "b.pth").write_bytes(damaged)
        status = main([str(tmp_path / "b.pth"), str(tmp_path / f"out{trial}"), "--heads", "4"])
        assert status in (0, 1)
        assert (tmp_path / f"out{trial}").exists() == (status == 0)
        assert capsys.readouterr().err.count("\n") == status
