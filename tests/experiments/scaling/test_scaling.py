"""Scaling: what is fitted, counted and written, on tiny sizes; times themselves prove nothing."""

import json
import pathlib

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from matplotlib.figure import Figure
from shown import commands_of, run_shown

from experiments.scaling import __main__ as scaling
from experiments.scaling import features, largest, picture, rounds
from experiments.scaling.__main__ import ScalingOptions
from experiments.scaling.clock import linear_fit, take_turns
from jist.models import MLP
from jist.strategies import IST, DataParallel, workers_mesh


def test_a_line_is_found_and_what_is_none_is_told():
    sizes = np.array([1.0, 5, 25, 100, 200])
    exact = linear_fit(sizes, 3 + 0.5 * sizes)
    assert (exact["at_zero"], exact["slope"]) == pytest.approx((3, 0.5))
    assert exact["worst_error"] < 1e-9
    flat = linear_fit(sizes, np.full(5, 7.0))
    assert flat["slope"] == pytest.approx(0, abs=1e-9)
    # A square is up to 60 % away from any line; noise of 1 % stays noise of a few.
    assert linear_fit(sizes, sizes**2)["worst_error"] > 0.5
    noisy = (3 + 0.5 * sizes) * [1.01, 0.99, 1.01, 0.99, 1.01]
    assert linear_fit(sizes, noisy)["worst_error"] < 0.03


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 1], [2, 2], "two different sizes"),
        ([1, 2], [1], "as many costs"),
        ([1, 2], [0, 1], "y must be positive"),
    ],
)
def test_no_line_goes_through_too_little(x, y, message):
    with pytest.raises(ValueError, match=message):
        linear_fit(x, y)


def test_variants_take_turns_after_a_run_to_warm_up():
    calls = []
    samples = take_turns({n: lambda n=n: calls.append(n) for n in "ab"}, 2, "cpu")
    assert calls == list("ababab")
    assert {name: len(found) for name, found in samples.items()} == {"a": 2, "b": 2}


def test_the_process_that_extracts_is_set_up_as_scripts_are(monkeypatch, capsys):
    done = []
    monkeypatch.setattr(features, "make_cores_devices", lambda: done.append("devices"))
    monkeypatch.setattr(features, "keep_freed_memory", lambda: done.append("memory"))
    monkeypatch.setattr(features, "extract_once", lambda *given: done.append(given))
    features.main(40, "cpu")
    assert done == ["devices", "memory", (40, "cpu")]


def test_time_and_memory_of_extraction_are_fitted(monkeypatch):
    def made_up(images, device):
        return {"seconds": 0.5 + images / 1000, "warm_bytes": 2e8, "peak_bytes": 3e8 + 10 * images}

    monkeypatch.setattr(features, "_in_a_process", made_up)
    found = features.measure(2, "cpu", sizes=(100, 1000))
    assert [len(point["samples_s"]) for point in found["points"]] == [2, 2]
    assert found["points"][0]["seconds_per_unit"]["median"] == pytest.approx(0.006)
    assert found["time_s"] == pytest.approx({"at_zero": 0.5, "slope": 0.001, "worst_error": 0})
    assert found["memory_bytes"]["slope"] == pytest.approx(10)


def test_images_are_a_function_of_their_number():
    few, many = features.drawn(3), features.drawn(5)
    np.testing.assert_array_equal(few.open(2), many.open(2))
    assert (np.asarray(few.open(1)) != np.asarray(few.open(2))).any()
    np.testing.assert_array_equal(few.example_ids, many.example_ids[:3])


WIDTHS = (24, 32, 12)


@pytest.mark.parametrize("way", ["data parallel", "IST, sharded"])
def test_bytes_by_shapes_are_those_that_are_allocated(way):
    counted = largest.counted_bytes(largest.build(way, WIDTHS, 4, "adam"))
    model = MLP(WIDTHS, rngs=nnx.Rngs(0))
    options = {"workers": 4, "local_steps": 2, "mesh": workers_mesh(4, 4)}
    if way == "data parallel":
        real = DataParallel(model, optax.adam(1e-3), **options)
    else:
        exchange = way.removeprefix("IST, ")
        options |= {"partition": "stratified", "exchange": exchange}
        real = IST(model, optax.adam(1e-3), **options)
    state = real.init(0)
    first = real.mesh.devices[0]
    held = [
        shard.data.nbytes
        for leaf in jax.tree.leaves((state.params, state.opt_state))
        for shard in leaf.addressable_shards
        if shard.device == first
    ]
    assert counted["at_home"] == sum(held)
    compiled = largest.compiled_bytes(largest.build(way, WIDTHS, 4, "adam"), WIDTHS)
    # Beside the state: examples, the order, the key, the round, and the statistics.
    beside = largest.BATCH * (4 * 24 + 4) + largest.LOCAL_STEPS * largest.BATCH * 4 + 8 + 4 + 8 * 32
    assert compiled["arguments"] == pytest.approx(sum(held) + beside, abs=8 * 32)


def test_what_fits_is_read_off_a_line(monkeypatch):
    monkeypatch.setattr(largest, "BUDGET", 1e6)
    table = largest.table(dimensions=(32, 64), workers=(2,), deep=(), outer=(100, 200))
    assert len(table["amazon_670k"]) == 3 * 2 * 2
    for fit in table["largest"]:
        rows = {
            d: largest.counted_bytes(largest.build(fit["way"], (100, d, 200), 2, fit["optimizer"]))
            for d in (fit["dimension"] // 4 * 4, fit["dimension"] // 4 * 4 + 4)
        }
        below, above = (sum(found.values()) for found in rows.values())
        assert below <= 1e6 < above * 1.01


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the first command writes, which measures all; the others then measure one part again."""
    out = tmp_path_factory.mktemp("scaling")
    memory_is_known = pathlib.Path("/proc/self/status").exists()
    parts = scaling.PARTS if memory_is_known else scaling.PARTS[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "take_device", lambda device: None)  # imports PyTorch
        for number, arguments in enumerate(sorted(commands_of("scaling"), key=len)):
            only = parts if number == 0 else ("steps",)
            last = f"--quick --repeats 1 --device cpu --note ? --out {out}".split()
            run_shown("scaling", [*arguments, "--only", *only, *last], patch)
    return out


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_process_of_its_own_extracts_and_knows_its_memory(written):
    results = json.loads((written / "scaling.json").read_text())["results"]
    for point in results["features"]["points"]:
        warm, peak = point["warm_bytes"]["median"], point["peak_bytes"]["median"]
        assert peak >= warm > 100e6
        assert peak < 4e9  # what this process once held does not count as the child's
        assert min(point["samples_s"]) > 0


def test_the_largest_network_is_asked_of_a_process_of_many_devices(written):
    results = json.loads((written / "scaling.json").read_text())["results"]
    compiled = [row for row in results["memory"]["amazon_670k"] if "compiled" in row]
    assert {row["way"] for row in compiled} == {*largest.WAYS}
    for row in compiled:
        assert row["compiled"]["total"] >= row["counted"]["at_home"]


def test_rounds_stand_beside_their_operations(written):
    results = json.loads((written / "scaling.json").read_text())["results"]
    whole, subnets = results["widths"]["points"]
    # Forward and two gradients, but none of the inputs; four blocks of a sixteenth each.
    outer, inner = 768 * 32 * 4 + 32 * 10 * 6, 32 * 32 * 6
    assert whole["flops_per_unit"] == rounds.BATCH * (outer + inner)
    assert subnets["flops_per_unit"] == rounds.BATCH * (outer + inner / 4)
    assert whole["parameters"] == 768 * 32 + 32 * 32 + 32 * 10 + 10
    one, four = results["workers"]["points"]
    assert one["units"] == four["units"] == 4 * 2 * rounds.BATCH
    assert one["product_flops_per_s"] * one["expected_s"] == pytest.approx(one["flops_per_unit"])
    assert four["expected_s"] < one["expected_s"] / 2
    assert results["steps"]["round_s"].keys() == {"at_zero", "slope", "worst_error"}


def test_it_writes_the_machine_all_samples_and_a_picture(written):
    report = json.loads((written / "scaling.json").read_text())
    assert report["machine"]["device"] == "cpu"
    assert {(part["note"], part["quick"]) for part in report["results"].values()} == {("?", True)}
    timed = [part for part in report["results"].values() if "points" in part]
    samples = [point["samples_s"] for part in timed for point in part["points"]]
    assert {len(found) for found in samples} == {1}
    assert (written / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_memory_is_printed_and_drawn(capsys, monkeypatch):
    monkeypatch.setattr(largest, "compiled_bytes", lambda _, widths: {"arguments": widths[1]})
    table = largest.table(dimensions=(16, 32), workers=(2, 4), deep=(), outer=(10, 20))
    scaling.print_memory(table)
    printed = capsys.readouterr().out
    assert "10-16-20" in printed
    assert "16 GB hold d = " in printed
    machine = {"processor": "some", "cores": 1, "device": "cpu"}
    report = {"machine": machine, "clock": "time (s)", "results": {"memory": table}}
    (axes,) = picture.draw(report).axes
    lines = {line.get_label() for line in axes.lines}
    assert lines == {*(f"{way}, 4 devices" for way in largest.WAYS), "16 GB"} | {
        "IST, sharded, 2 devices, by shapes"
    }


def test_parts_measured_before_stay_unless_the_machine_was_another(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "take_device", lambda device: None)
    monkeypatch.setattr(scaling, "measure", lambda part, options: {"of": part})
    monkeypatch.setattr(scaling, "print_part", lambda name, part: None)
    monkeypatch.setattr(picture, "draw", lambda report: Figure())
    commits = iter(("1ff309d", "1ff309d, modified", "0fe43d5"))
    monkeypatch.setattr(scaling, "commit", lambda: next(commits))
    for part, note in (("widths", "a"), ("steps", "a"), ("steps", "b")):
        scaling.main(ScalingOptions(only=(part,), out=tmp_path, note=note))
    report = json.loads((tmp_path / "scaling.json").read_text())
    found = {name: (part["note"], part["commit"]) for name, part in report["results"].items()}
    assert found == {"widths": ("a", "1ff309d"), "steps": ("b", "0fe43d5")}
    (tmp_path / "scaling.json").write_text(json.dumps(report | {"machine": {"cores": 0}}))
    with pytest.raises(ValueError, match="measured on another machine"):
        scaling.main(ScalingOptions(only=("steps",), out=tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ("depth",)}, r"only must be of .*'memory'.*, got \['depth'\]"),
        ({"only": ()}, "got none of them"),
        ({"repeats": 0}, "repeats must be positive, got 0"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        scaling.main(ScalingOptions(**options))
