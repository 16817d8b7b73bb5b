"""jist and PyTorch take the same steps before anybody times them."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.bench import pretrain as bench_pretrain
from experiments.bench import pretrain_steps as bench_sides
from experiments.bench.hardware import commit, has_torch
from experiments.bench.pretrain import BenchOptions
from experiments.runs import pretraining
from jist.costs import matmul_flops
from jist.models import DecoderConfig, ViTConfig

# Encoder and decoder differ in every size, so that none can stand for another.
SIZE = (
    ViTConfig(16, 4, dim=16, depth=1, heads=2, mlp_dim=48),
    DecoderConfig(dim=8, depth=1, heads=4, mlp_dim=24),
)


@pytest.fixture
def work(monkeypatch):
    monkeypatch.setitem(pretraining.SIZES, "nano", SIZE)
    return bench_sides.make_work("nano", batch_size=8, steps=5)


def test_five_losses_agree_with_pytorch_and_fall(work):
    pytest.importorskip("torch", reason="the other variant")
    checked = bench_sides.check(work.variants("float32", "cpu", compiled=False), work.order)
    assert checked["differences"].keys() == {"jist", "torch eager"}
    assert checked["differences"]["torch eager"] < 1e-5
    losses = checked["losses"]["jist"]
    assert losses[-1] < losses[0]
    # The other compute type is another rounding of the same work.
    for steps in work.variants("bfloat16", "cpu", compiled=False).values():
        rounded = steps(work.order)
        np.testing.assert_allclose(rounded, losses, rtol=0.02)
        assert np.abs(rounded - losses).max() > 1e-6


def test_other_masks_are_other_work(work):
    pytest.importorskip("torch", reason="the other variant")
    other = dataclasses.replace(work, keep=work.keep[::-1])
    variants = {
        "jist": work.variants("float32", "cpu", compiled=False)["jist"],
        "torch eager": other.variants("float32", "cpu", compiled=False)["torch eager"],
    }
    with pytest.raises(RuntimeError, match=r"the loss of torch eager at step 0 is .* apart, so"):
        bench_sides.check(variants, work.order[:1])


def test_a_side_without_a_number_is_other_work(work):
    variants = {"jist": lambda order: np.ones(5), "other": lambda order: np.full(5, np.nan)}
    with pytest.raises(RuntimeError, match="the loss of other at step 0 is nan"):
        bench_sides.check(variants, work.order)


def test_the_formula_counts_what_jax_multiplies(work):
    mae = work.mae("float32")
    graphdef, params, rest = nnx.split(mae, nnx.Param, ...)
    images = mae.encoder.preprocessing.normalize(jnp.asarray(work.images[:8]))

    def loss(params):
        return nnx.merge(graphdef, params, rest).loss(images, jnp.asarray(work.keep[:8]))

    traced = matmul_flops(jax.value_and_grad(loss), params)
    # The jaxpr names a gradient of the patches that nobody reads; XLA drops it.
    encoder = SIZE[0]
    unread = 2 * 8 * work.keep.shape[1] * 3 * encoder.patch_size**2 * encoder.dim
    assert bench_sides.step_flops(*SIZE, 8) == traced - unread


def test_it_measures_and_writes_all_samples(work, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(bench_pretrain.MATMUL, "cpu", (64, 1))
    out = tmp_path / "runs" / "bench.json"
    options = BenchOptions(batch_size=8, steps=2, repeats=3, compile=False, out=out)
    bench_pretrain.main(options)
    report = json.loads(out.read_text())
    assert all(len(samples) == 3 for samples in report["samples"]["step_s"].values())
    assert report["results"]["jist"]["images_per_s"]["median"] > 0
    assert report["commit"] == commit()
    # As in the other benchmarks: of the faster of two products.
    products = report["products"]["variants"]
    assert products.keys() == ({"jist", "torch"} if has_torch() else {"jist"})
    rate = 1e9 * max(variant["items_per_s"]["median"] for variant in products.values())
    step = np.median(report["samples"]["step_s"]["jist"])
    share = report["results"]["jist"]["share_of_matmul"]["median"]
    assert share == pytest.approx(report["step_flops"] / step / rate)
    assert "jist" in capsys.readouterr().out


def test_what_is_measured_outlives_what_comes_later(work, monkeypatch, tmp_path):
    out = tmp_path / "bench.json"
    monkeypatch.setitem(bench_pretrain.MATMUL, "cpu", (64, 1))
    monkeypatch.setattr(bench_pretrain, "check_work", lambda options: {"differences": {}})

    def stopped(options):
        assert json.loads(out.read_text())["same_work"] == {"differences": {}}
        yield {"step_s": {"jist": [1.0]}, "first_step_s": {"jist": 2.0}, "left_out": {}}
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_pretrain, "take_turns", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench_pretrain.main(BenchOptions(batch_size=8, out=out))
    assert json.loads(out.read_text())["samples"]["step_s"] == {"jist": [1.0]}


def test_a_side_that_does_not_compile_is_left_out(work, monkeypatch, capsys):
    exceptions = pytest.importorskip("torch._dynamo.exc", reason="the other variant")

    def fails(order):
        raise exceptions.TorchDynamoException("no C++ compiler")

    def variants(self, *given):
        return {"jist": lambda order: np.ones(len(order)), "torch compiled": fails}

    monkeypatch.setattr(bench_sides.Work, "variants", variants)
    options = BenchOptions(batch_size=8, steps=1, repeats=2)
    assert bench_pretrain.check_work(options)["left_out"] == {"torch compiled": "no C++ compiler"}
    *_, measured = bench_pretrain.take_turns(options)
    assert measured["left_out"] == {"torch compiled": "no C++ compiler"}
    assert {name: len(found) for name, found in measured["step_s"].items()} == {"jist": 2}
    assert "torch compiled is left out: no C++ compiler" in capsys.readouterr().out


def test_without_pytorch_jist_goes_alone(work, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    bench_pretrain.take_device("cpu")
    assert "PyTorch is not installed" in capsys.readouterr().out
    assert work.variants("float32", "cpu", compiled=True).keys() == {"jist"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "huge"}, "encoder must be one of .*'base'.*, got 'huge'"),
        ({"dtype": "float16"}, "dtype must be one of .*, got 'float16'"),
        ({"repeats": 0}, "repeats must be positive, got 0"),
        ({"device": "gpu"}, "device=gpu, but JAX has only"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        bench_pretrain.main(BenchOptions(**options))
