"""Exports of one run side by side, on images that a tiny network sees."""

import json
from typing import Any

import numpy as np
import pytest
from flax import nnx
from shown import commands_of, run_shown

from experiments import export_costs
from experiments.bench.exported import programs
from jist.costs import matmul_flops
from jist.export import Deployed, write_stablehlo, write_tensors
from jist.export.classify import classify
from jist.models import MAEEncoder, ViTConfig


def network(weights="float32"):
    encoder = MAEEncoder(ViTConfig(8, 4, 8, 1, 2, 16), rngs=nnx.Rngs(0))
    encoder.eval()
    layers = [(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), np.ones(3, "f"))]
    return Deployed(layers, 2.0, encoder, weights=weights)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two programs with one network, images, and what the first says of all but one of them."""
    root = tmp_path_factory.mktemp("exported")
    said = {"format": "stablehlo", "image_size": 8, "patch_size": 4, "patches": 4}
    for weights in ("float32", "int8"):
        out = root / "exported" / weights
        out.mkdir(parents=True)
        write_stablehlo(network(weights), out)
        (out / "config.json").write_text(json.dumps(said | {"weights": weights}))
    images = np.random.default_rng(1).integers(0, 255, (5, 8, 8, 3), np.uint8)
    np.save(root / "x.npy", images)
    (program,) = programs(root / "exported" / "float32")
    keep = np.arange(4, dtype=np.int32)[None].repeat(5, 0)
    labels = program.classes(images, keep)
    labels[0] = (labels[0] + 1) % 3  # one of five is wrong
    np.save(root / "y.npy", labels)
    return root


def test_every_program_is_measured_at_every_ratio(exported, monkeypatch):
    monkeypatch.chdir(exported)
    (arguments,) = commands_of("export_costs")
    words = [*arguments, *["--repeats", "2", "--ratios", "0", "0.5", "--out", "costs.json"]]
    run_shown("export_costs", words, monkeypatch)
    rows = json.loads((exported / "costs.json").read_text())["rows"]
    found = [(row["weights"], row["ratio"], row["visible_pixel_bytes"]) for row in rows]
    assert found == [
        *(("float32", 0, 192), ("int8", 0, 192)),
        *(("float32", 0.5, 96), ("int8", 0.5, 96)),
    ]
    assert (rows[0]["accuracy"], rows[0]["time_over_first"]) == (0.8, 1)
    for row in rows:
        file = exported / row["export"] / "model.stablehlo"
        assert row["program_bytes"] == file.stat().st_size
        assert row["milliseconds_per_image"]["least"] > 0
    # All of the matrix products, and besides them what is done number by number.
    whole = network()
    for row, kept in ((rows[0], 4), (rows[2], 2)):
        given = np.zeros((1, 8, 8, 3), np.uint8), np.arange(kept, dtype=np.int32)[None]
        products = matmul_flops(lambda *image: classify(whole, *image), *given)
        assert products < row["operations"] < 2 * products


def test_pytorch_finds_what_the_program_finds(exported, tmp_path):
    pytest.importorskip("torch")
    from experiments.bench.torch_classifier import torch_classifier

    write_tensors(network(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"temperature": 2.0}))
    (program,) = programs(exported / "exported" / "float32")
    given = np.load(exported / "x.npy"), np.tile(np.array([[0, 3]], np.int32), (5, 1))
    found = torch_classifier(tmp_path, compiled=False)(*given)
    np.testing.assert_allclose(found, program.call(*given), rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exports": ("exported",)}, "holds no .stablehlo"),
        ({"images": "exported/int8/config.json"}, "config.json is no array"),
        ({"images": "y.npy"}, "images must be u8"),
        ({"labels": "two.npy"}, "labels must be .5."),
    ],
)
def test_what_does_not_fit_is_told(exported, monkeypatch, given, message):
    monkeypatch.chdir(exported)
    np.save("two.npy", np.zeros(2, int))
    given = {"exports": ("exported/int8",), "images": "x.npy", "labels": "y.npy"} | given
    paths: dict[str, Any] = {
        name: tuple(map(exported.joinpath, value)) if name == "exports" else exported / value
        for name, value in given.items()
    }
    with pytest.raises(ValueError, match=message):
        export_costs.main(export_costs.ExportCostsOptions(**paths))
