"""Encoding is timed after all variants have shown that they do the same work."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.bench import __main__ as bench
from experiments.bench import encode, head, roofline, timing
from experiments.command import cli
from jist.costs import matmul_flops
from jist.features import cls_vectors


@pytest.fixture(scope="module")
def encoder():
    return encode.random_encoder(encode.QUICK)


@pytest.fixture
def work(encoder):
    return encode.make_work(encoder, 0.5, 4, "cpu")


def test_other_masks_are_other_work(work, monkeypatch):
    pytest.importorskip("transformers", reason="the other variant")
    other = dataclasses.replace(work, keep=(work.keep + 1) % encode.QUICK.patches)
    variant = encode.Work.torch
    monkeypatch.setattr(encode.Work, "torch", lambda self, dtype: variant(other, dtype))
    with pytest.raises(RuntimeError, match="CLS vectors of torch eager are .* away from jist's"):
        encode.case("small", work, "float32", (2,), compiled=False)


def test_vectors_that_are_not_numbers_agree_with_nothing():
    vectors = np.ones((2, 3))
    with pytest.raises(RuntimeError, match="CLS vectors of it are nan of their norm"):
        encode.check("it", vectors * np.nan, vectors, "bfloat16")


@pytest.mark.parametrize("ratio", encode.RATIOS)
def test_the_formula_counts_what_jax_multiplies(encoder, ratio):
    work = encode.make_work(encoder, ratio, 3, "cpu")
    graphdef, weights = nnx.split(encoder)

    def vectors(weights):
        images, keep = jnp.asarray(work.images), jnp.asarray(work.keep)
        return cls_vectors(nnx.merge(graphdef, weights), images, keep)

    flops = encode.image_flops(encode.QUICK, work.keep.shape[1])
    assert 3 * flops == matmul_flops(vectors, weights)


def test_without_a_compiler_the_reason_is_noted(work, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="the other variant")
    from torch._dynamo.exc import TorchDynamoException

    def torch(self, dtype, *, compiled=False):
        if compiled:
            raise TorchDynamoException("\nno C++ compiler\nmuch more")
        return self.jist(dtype)

    monkeypatch.setattr(encode.Work, "torch", torch)
    case = encode.case("small", work, "bfloat16", (2,))
    assert case.variants.keys() == {timing.JIST, encode.EAGER}
    assert case.facts["torch compiled is left out"] == "no C++ compiler"
    assert "torch compiled is left out: no C++ compiler" in capsys.readouterr().out


def test_what_trains_is_held_in_full_float32_and_encoders_decide_themselves(monkeypatch):
    def cases(device, **given):
        precisions.append(jax.config.jax_default_matmul_precision)
        yield timing.Case("nothing", "images/s", {timing.JIST: timing.Variant(run, 1)})

    def run():
        precisions.append(jax.config.jax_default_matmul_precision)

    for module, wanted in ((head, "float32"), (encode, None)):
        precisions = []
        monkeypatch.setattr(module, "cases", cases)
        name = module.__name__.rpartition(".")[2]
        (_,) = bench._results(name, bench.BenchOptions(repeats=1))
        assert precisions == [wanted] * 4  # built, run to compile and to warm up, raced


def variant(dtype, *rates, flops=1e9):
    return {"dtype": dtype, "items_per_s": timing.spread(list(rates)), "flops_per_item": flops}


def test_shares_are_of_the_greater_rate_of_a_sides_own_type():
    products = [
        {"unit": "GFLOP/s", "dtype": "float32",
         "variants": {"jist": variant("float32", 1, 2, 3), "torch": variant("float32", 3, 4, 5)}},
        {"unit": "GFLOP/s", "dtype": "bfloat16", "variants": {"jist": variant("bfloat16", 40)}},
        {"unit": "GB/s", "dtype": "float32", "variants": {"jist": variant("float32", 1000)}},
    ]  # fmt: skip
    rates = roofline.matmul_rates(products)
    assert rates == {"float32": 4e9, "bfloat16": 40e9}
    row = {
        "variants": {
            "a": variant("float32", 1, 2, 3),
            "b": variant("bfloat16", 4),
            "c": variant("int8", 9),
        }
    }
    roofline.add_shares(row, rates)
    assert row["variants"]["a"]["share_of_matmul"] == {
        "median": 0.5,
        "least": 0.25,
        "greatest": 0.75,
    }
    assert row["variants"]["b"]["share_of_matmul"]["median"] == 0.1
    assert "share_of_matmul" not in row["variants"]["c"]
    unknown = {"variants": {"a": variant("float32", 1, flops=None)}}
    roofline.add_shares(unknown, rates)
    assert "share_of_matmul" not in unknown["variants"]["a"]


def test_the_machine_is_measured_before_what_is_compared_with_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(roofline.MATMUL, "cpu", (16, 2))
    monkeypatch.setitem(roofline.MEMORY, "cpu", (64, 2))
    monkeypatch.setattr(roofline, "last_cache_bytes", lambda: 1024)
    variants = {timing.JIST: timing.Variant(lambda: sum(range(1000)), 5)}
    cases = [timing.Case("nothing", "images/s", variants, flops=10)]
    monkeypatch.setattr(encode, "cases", lambda device, **given: iter(cases))
    out = tmp_path / "runs" / "bench.json"
    bench.main(bench.BenchOptions(only=("encode",), repeats=2, out=out))
    results = json.loads(out.read_text())["results"]
    assert list(results) == ["roofline", "encode"]
    # The two arrays together are four times the last cache.
    assert results["roofline"][-1]["facts"]["bytes"] == 4 * 1024
    found = results["encode"][0]["variants"][timing.JIST]
    share = (
        10 * found["items_per_s"]["median"] / roofline.matmul_rates(results["roofline"])["float32"]
    )
    assert found["share_of_matmul"]["median"] == pytest.approx(share)
    assert "nothing" in capsys.readouterr().out


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_the_product_is_one(dtype, digits):
    # The rate is that of work that is done: the same product in NumPy.
    products = roofline.matmul(dtype, 8, 3)
    matrix = np.asarray(jax.random.normal(jax.random.key(0), (8, 8))) / 8**0.5
    expected = np.linalg.matrix_power(matrix, 4)
    found = np.asarray(products()).astype(np.float32)
    assert np.linalg.norm(found - expected) <= digits * np.linalg.norm(expected)


def test_help_names_every_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(bench.main, bench.BenchOptions, bench.__doc__)
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in bench.BENCHMARKS)


def test_an_unknown_benchmark_ends_the_command_with_code_2():
    command = [sys.executable, "-m", "experiments.bench", "--only", "nonsense"]
    wrong = subprocess.run(command, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "only must be of" in wrong.stderr
