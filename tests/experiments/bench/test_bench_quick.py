"""All benchmarks on small sizes, by the commands that are shown; times themselves prove nothing."""

import json

import pytest
from shown import commands_of, run_shown

from experiments.bench import __main__ as bench
from experiments.bench import encode, finetune, head, ist, masks, pipeline, pretrain, stream
from experiments.bench.hardware import commit, has_torch
from experiments.bench.timing import JIST

SHORTER = "--quick --no-compile --repeats 2 --device cpu"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the first command writes, which runs all; the others then measure the machine alone."""
    root = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for number, arguments in enumerate(sorted(commands_of("bench"), key=len)):
            last = () if number == 0 else ("--only", "roofline")
            words = [*arguments, *SHORTER.split(), *last, "--out", f"{number}/bench.json"]
            run_shown("bench", words, patch)
    assert json.loads((root / f"{number}/bench.json").read_text())["results"].keys() == {"roofline"}
    return json.loads((root / "0/bench.json").read_text())


@pytest.fixture(scope="module")
def results(written):
    return written["results"]


def test_every_benchmark_writes_all_samples_and_what_it_was(written, results):
    assert tuple(results) == bench.BENCHMARKS
    assert (written["options"]["quick"], written["options"]["repeats"]) == (True, 2)
    assert written["commit"] == commit()
    for rows in results.values():
        assert rows
        for row in rows:
            assert JIST in row["variants"]
            assert len(row["variants"]) > 1 or not has_torch()
            for variant in row["variants"].values():
                assert len(variant["samples_s"]) == 2
                assert variant["first_run_s"] > 0


def test_heads_rounds_and_finetuning_agree_with_pytorch(results):
    if not has_torch():
        pytest.skip("compares with PyTorch, which is not installed")
    for name in ("head", "ist", "wide", "finetune"):
        for row in results[name]:
            for differences in row["facts"]["differences"].values():
                assert differences["loss"] < 1e-4
                assert differences["parameters"] < 1e-2
    (epoch,) = results["head"]
    assert {variant["items"] for variant in epoch["variants"].values()} == {head.QUICK_EXAMPLES}
    (steps,) = results["finetune"]
    items = finetune.QUICK_BATCH * finetune.QUICK_STEPS
    assert {variant["items"] for variant in steps["variants"].values()} == {items}
    (rounds,) = results["ist"]
    assert rounds["variants"].keys() == {JIST, ist.PROCESSES, ist.IN_TURN}
    assert rounds["variants"][JIST]["items"] == 2 * ist.LOCAL_STEPS * ist.BATCH


@pytest.mark.parametrize(("number", "dtype"), [(0, "float32"), (1, "bfloat16")])
def test_cls_vectors_agree(results, number, dtype):
    if not has_torch():
        pytest.skip("compares with PyTorch, which is not installed")
    row = results["encode"][number]
    tolerances = {encode.EAGER: encode.TOLERANCES[dtype]}
    if dtype == "float32":
        tolerances[encode.ROUNDED] = encode.TOLERANCES["bfloat16"]
    # jist's own vectors are what the others are compared with.
    assert tolerances.keys() == row["facts"]["difference"].keys()
    assert {JIST, *tolerances} == row["variants"].keys()
    for variant, tolerance in tolerances.items():
        assert row["facts"]["difference"][variant] <= tolerance
    for name, variant in row["variants"].items():
        rates = row["facts"]["images_per_s_of_batch"][name]
        assert variant["items"] == int(max(rates, key=rates.get))
        assert variant["flops_per_item"] == encode.image_flops(encode.QUICK, 4)
    assert row["variants"][JIST]["dtype"] == dtype


def test_files_give_the_same_features_in_both_pipelines(results):
    (row,) = results["pipeline"]
    images, _, _ = pipeline.QUICK_SIZES
    assert row["variants"][JIST]["items"] == images
    torch = {f"{encode.EAGER}, workers: 0"} if has_torch() else set()
    assert row["facts"]["difference"].keys() == {pipeline.DECODED} | torch
    pairs = zip(
        *(row["variants"][variant]["samples_s"] for variant in (JIST, pipeline.DECODED)),
        strict=True,
    )
    assert row["facts"]["idle_share"]["greatest"] == max(1 - alone / all_ for all_, alone in pairs)


def test_all_masks_encode_every_image(results):
    (row,) = results["masks"]
    ((_, _, _, images, whole),) = masks.QUICK_CASES
    assert row["facts"]["largest_difference"] < 1e-5
    assert [variant["items"] for variant in row["variants"].values()] == [images, images, whole]


def test_rows_from_disk_are_as_many_as_from_memory(results):
    (row,) = results["stream"]
    items = stream.ROUNDS * stream.QUICK_STEPS * stream.WORKERS * stream.BATCH
    assert [variant["items"] for variant in row["variants"].values()] == [items] * 2
    assert row["facts"]["equal_losses"]


def test_shares_are_of_the_faster_of_two_products(results):
    (row,) = results["pretrain"]
    assert row["variants"].keys() == ({JIST, "torch eager"} if has_torch() else {JIST})
    items = pretrain.QUICK_BATCH * pretrain.QUICK_STEPS
    assert {variant["items"] for variant in row["variants"].values()} == {items}
    (products,) = [
        found["variants"]
        for found in results["roofline"]
        if found["name"].startswith("product") and found["dtype"] == "float32"
    ]
    rate = 1e9 * max(variant["items_per_s"]["median"] for variant in products.values())
    jist = row["variants"][JIST]
    flops = pretrain.step_flops(*pretrain.QUICK, pretrain.QUICK_BATCH) / pretrain.QUICK_BATCH
    expected = flops * jist["items_per_s"]["median"] / rate
    assert jist["share_of_matmul"]["median"] == pytest.approx(expected)
