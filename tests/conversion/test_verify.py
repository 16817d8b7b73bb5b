"""Verification prints the differences if models agree, and fails if they do not."""

import numpy as np
import pytest

from conversion import verify
from conversion.__main__ import main
from conversion.layouts import LINEAR, PATCHES
from jist.models import ViTConfig, abstract, transformer, weights

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, writes the sources")

import checkpoints  # noqa: E402


def verify_lines(arguments, capsys):
    status = main([*map(str, arguments), "--verify"])
    said = capsys.readouterr()
    assert status == 0, said.err
    lines = [line for line in said.out.splitlines() if line.startswith("verify")]
    # bfloat16 is printed and decides nothing; a model this small may pass its tolerance by chance.
    exact = [line for line in lines if "bfloat16" not in line]
    assert exact
    assert all(line.endswith(" ok") for line in exact), lines
    rounded = [float(line.split("max rel ")[1].split()[0]) for line in lines if line not in exact]
    assert max(rounded) < 0.03, lines
    return lines


def test_every_ratio_and_type_is_verified(tmp_path, capsys):
    # One block: nearly all the time goes into compiling for every ratio and type.
    model = checkpoints.mae(**checkpoints.SMALL | {"depth": 1})
    torch.save(model.state_dict(), tmp_path / "mae.pth")
    lines = verify_lines([tmp_path / "mae.pth", tmp_path / "out", "--heads", "4"], capsys)
    for ratio in ("0.00", "0.50", "0.75", "0.90"):
        # CLS and tokens in two types.
        assert sum(f"ratio {ratio}" in line for line in lines) == 4


def test_decoder_is_verified_by_the_reference(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verify, "RATIOS", (0.75,))
    model = checkpoints.mae(**checkpoints.SMALL | {"depth": 1}, decoder=checkpoints.DECODER)
    torch.save(model.state_dict(), tmp_path / "mae.pth")
    heads = ["--heads", "4", "--decoder-heads", str(checkpoints.DECODER[2])]
    lines = verify_lines([tmp_path / "mae.pth", tmp_path / "out", *heads], capsys)
    assert [line.split()[1] for line in lines[-2:]] == ["pixels", "loss"]


@pytest.mark.parametrize("decoder", [True, False])
def test_huggingface_is_verified_by_its_own_model(decoder, hf_mae, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verify, "RATIOS", (0.75,))
    (hf_mae if decoder else hf_mae.vit).save_pretrained(tmp_path / "hf")
    lines = verify_lines([tmp_path / "hf", tmp_path / "out"], capsys)
    assert len(lines) == (6 if decoder else 4)


@pytest.fixture
def built_anew():
    """What loading remembers of a model's shapes is that of other blocks."""
    abstract._traced.cache_clear()
    yield
    abstract._traced.cache_clear()


@pytest.mark.parametrize("trap", ["heads", "epsilon"])
def test_what_no_shape_shows_is_found(trap, mae, tmp_path, capsys, monkeypatch, built_anew):
    # PyTorch's model is built as it should be, jist's not.
    monkeypatch.setattr(verify, "RATIOS", (0.5,))
    torch.save({k: v for k, v in mae.state_dict().items() if "dec" not in k and "mask" not in k},
               tmp_path / "mae.pth")  # fmt: skip
    if trap == "epsilon":
        block = transformer.Block
        monkeypatch.setattr(
            transformer, "Block", lambda d, h, m, eps, **k: block(d, h, m, 1e-3, **k)
        )
    else:

        class TwoHeads(ViTConfig):
            def __init__(self, **k):
                super().__init__(**{**k, "heads": 2})

        monkeypatch.setattr(weights, "ViTConfig", TwoHeads)
    source, out = str(tmp_path / "mae.pth"), tmp_path / "out"
    assert main([source, str(out), "--heads", "4", "--verify"]) == 1
    said = capsys.readouterr()
    assert "OVER" in said.out
    assert "over tolerance; nothing is written" in said.err
    assert not out.exists()


def test_nan_is_no_agreement():
    nan = verify.difference("CLS", "tokens", 0.0, "float32", [[np.nan, 1.0]], [[1.0, 1.0]])
    assert not nan.agrees


def test_relative_is_by_the_norm_of_the_worst_token():
    ours, theirs = [[3.0, 4.5], [100.0, 0.0]], [[3.0, 4.0], [100.0, 0.0]]
    found = verify.difference("tokens", "tokens", 0.0, "float32", ours, theirs)
    assert found.absolute == pytest.approx(0.5)
    assert found.relative == pytest.approx(0.1)


def test_layouts_by_hand():
    kernel = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    matrix = PATCHES.to_jist([kernel])
    image = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    # A patch is one position of the convolution, flattened as (row, column, channel).
    np.testing.assert_allclose(
        image.reshape(-1) @ matrix, np.einsum("hwc,dchw->d", image, kernel), rtol=1e-5
    )
    np.testing.assert_array_equal(PATCHES.to_source(matrix)[0], kernel)
    np.testing.assert_array_equal(LINEAR.to_jist([kernel[0, 0]]), kernel[0, 0].T)
