"""jist and PyTorch take the same steps before anybody times them."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.bench import __main__ as bench
from experiments.bench import pretrain as bench_pretrain
from experiments.bench import pretrain_steps as bench_pretrain_steps
from experiments.bench.__main__ import BenchOptions
from experiments.bench.hardware import take_device
from experiments.bench.pretrain import PretrainOptions
from jist.costs import matmul_flops


@pytest.fixture
def work():
    return bench_pretrain_steps.make_work(bench_pretrain.QUICK, batch_size=8, steps=5)


def test_five_losses_agree_with_pytorch_and_fall(work):
    pytest.importorskip("torch", reason="the other variant")
    checked = bench_pretrain_steps.check(
        work.variants("float32", "cpu", compiled=False), work.order
    )
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
        bench_pretrain_steps.check(variants, work.order[:1])


def test_a_side_without_a_number_is_other_work(work):
    variants = {"jist": lambda order: np.ones(5), "other": lambda order: np.full(5, np.nan)}
    with pytest.raises(RuntimeError, match="the loss of other at step 0 is nan"):
        bench_pretrain_steps.check(variants, work.order)


def test_the_formula_counts_what_jax_multiplies(work):
    mae = work.mae("float32")
    graphdef, params, rest = nnx.split(mae, nnx.Param, ...)
    images = mae.encoder.preprocessing.normalize(jnp.asarray(work.images[:8]))

    def loss(params):
        return nnx.merge(graphdef, params, rest).loss(images, jnp.asarray(work.keep[:8]))

    traced = matmul_flops(jax.value_and_grad(loss), params)
    # The jaxpr names a gradient of the patches that nobody reads; XLA drops it.
    encoder, _ = bench_pretrain.QUICK
    unread = 2 * 8 * work.keep.shape[1] * 3 * encoder.patch_size**2 * encoder.dim
    assert bench_pretrain_steps.step_flops(*bench_pretrain.QUICK, 8) == traced - unread


def test_what_is_measured_outlives_what_comes_later(monkeypatch, tmp_path):
    out = tmp_path / "runs" / "bench.json"
    options = BenchOptions(only=("pretrain",), quick=True, repeats=3, compile=False, out=out)
    turns = iter(range(100))

    def stopped(self, *given):
        def take(order):
            if next(turns) == 5:  # the check, the first step, warming up, two turns
                raise KeyboardInterrupt
            return np.ones(len(order))

        return {"jist": take}

    monkeypatch.setattr(bench_pretrain_steps.Work, "variants", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench.main(options)
    (row,) = json.loads(options.out.read_text())["results"]["pretrain"]
    assert len(row["variants"]["jist"]["samples_s"]) == 2


def test_a_variant_that_does_not_compile_is_left_out(work, monkeypatch, capsys):
    exceptions = pytest.importorskip("torch._dynamo.exc", reason="the other variant")

    def fails(order):
        raise exceptions.TorchDynamoException("no C++ compiler")

    def variants(self, *given):
        return {"jist": lambda order: np.ones(len(order)), "torch compiled": fails}

    monkeypatch.setattr(bench_pretrain_steps.Work, "variants", variants)
    (case,) = bench_pretrain.cases("cpu", quick=True)
    assert case.facts["left_out"] == {"torch compiled": "no C++ compiler"}
    assert case.facts["torch compiled is left out"] == "no C++ compiler"
    assert case.variants.keys() == {"jist"}
    assert "torch compiled is left out: no C++ compiler" in capsys.readouterr().out


def test_without_pytorch_jist_goes_alone(work, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    take_device("cpu")
    assert "PyTorch is not installed" in capsys.readouterr().out
    assert work.variants("float32", "cpu", compiled=True).keys() == {"jist"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "huge"}, "encoder must be one of .*'base'.*, got 'huge'"),
        ({"dtype": "float16"}, "dtype must be one of .*, got 'float16'"),
        ({"steps": 0}, "steps must be positive, got 0"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        PretrainOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats must be positive, got 0"),
        ({"device": "gpu"}, "device=gpu, but JAX has only"),
    ],
)
def test_bad_options_of_all_benchmarks_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        bench.main(BenchOptions(**options))
