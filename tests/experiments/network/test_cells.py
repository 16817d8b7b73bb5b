"""What is read off the cells, against sums by hand."""

import numpy as np
import pytest

from experiments.network import cells, curves, options, report
from experiments.network.__main__ import load_examples
from experiments.network.training import Training

NODES = [
    [
        {"start": 0.0, "end": 9.0, "busy": 8.0, "received": 0, "sent": 0},
        {"start": 10.0, "end": 12.0, "busy": 0.5, "received": 100, "sent": 90},
        {"start": 20.0, "end": 24.0, "busy": 0.5, "received": 100, "sent": 90},
    ],
    [
        {"start": 0.5, "end": 8.0, "busy": 7.0, "received": 0, "sent": 0},
        {"start": 10.4, "end": 12.4, "busy": 1.0, "received": 120, "sent": 80},
        {"start": 20.0, "end": 24.2, "busy": 1.5, "received": 120, "sent": 80},
    ],
]


def cell(**changes):
    given = {
        "variant": "jist",
        "strategy": "ist",
        "nodes": 2,
        "bandwidth": "100mbit",
        "delay_s": 0.0,
        "k": 2.0,
    }
    return given | cells.merged(NODES, 2.0) | changes


def test_a_round_lasts_from_the_first_start_to_the_last_end_undilated():
    found = cell()
    assert found["seconds"] == pytest.approx([4.5, 1.2, 2.1])
    assert found["computing"][1] == [0.5, 1.0]
    assert found["waiting"][1] == pytest.approx([0.7, 0.2])
    assert found["received"][2] == [100, 120]


def test_the_first_round_and_those_not_timed_count_as_the_median():
    found = cell()
    usual = cells.typical(found)
    assert usual == pytest.approx((1.2 + 2.1) / 2)
    assert cells.times(found, 5) == pytest.approx(np.cumsum([usual, 1.2, 2.1, usual, usual]))
    assert cells.times(found, 2) == pytest.approx([usual, usual + 1.2])
    assert cells.typical(found, "received") == 110


def test_seconds_to_an_accuracy_are_those_of_the_first_round_that_reaches_it():
    accuracies, elapsed = [0.3, 0.6, 0.5, 0.7], [1.0, 2.0, 3.0, 4.0]
    assert cells.seconds_to(0.5, accuracies, elapsed) == 2.0
    assert cells.seconds_to(0.65, accuracies, elapsed) == 4.0
    assert cells.seconds_to(0.8, accuracies, elapsed) is None


def test_rows_hold_ratios_to_ist_on_the_same_link_and_the_models_error():
    slow = {"seconds": [9.0, 6.0, 6.0], "waiting": [[3.0], [3.0], [3.0]]}
    measured = [
        cell(bandwidth="none", seconds=[5.0, 1.0, 1.0]),
        cell(seconds=[5.0, 2.0, 2.0]),
        cell(strategy="local_sgd", **slow),
    ]
    curve = {"accuracies": [0.4, 0.8], "steps": 10, "bytes_received": 6_250_000, "flops": 1}
    rows = report.table(measured, {"ist-2": curve, "local_sgd-2": curve}, [0.7, 0.9])
    assert [row["strategy"] for row in rows] == ["ist", "local_sgd"]
    assert rows[1]["seconds_to"] == {"0.7": 12.0, "0.9": None}
    assert rows[1]["ist_is_faster_by"] == {"0.7": pytest.approx(3.0), "0.9": None}
    assert rows[1]["waiting_share"] == pytest.approx(0.5)
    # A second of computing, and half a second for 50 Mbit of payload on 100 Mbit/s.
    expected = 1.0 + 0.5 * 1514 / 1448
    assert rows[0]["predicted_round_s"] == pytest.approx(expected)
    assert rows[0]["prediction_is_off_by"] == pytest.approx(expected / 2 - 1)
    assert "predicted_round_s" not in rows[1]


def test_steps_to_the_highest_target_that_both_reach_are_compared():
    known = {
        "data_parallel-2": {"accuracies": [0.1, 0.3, 0.5, 0.7], "steps": 5},
        "ist-2": {"accuracies": [0.2, 0.6], "steps": 10},
        "ist-4": {"accuracies": [0.9], "steps": 10},
    }
    assert report.steps_ratios(known, [0.2, 0.5, 0.7]) == {2: 15 / 20}


def test_the_nodes_read_the_features_of_any_data_set(tmp_path):
    x, y = np.eye(20, 5, dtype=np.float32), np.array(["ash", "elm"] * 10)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    how = options.NetworkOptions(dataset=f"features:{tmp_path}/mine.npz", run_dir=tmp_path)
    found = load_examples(how)
    assert found["classes"] == 2
    assert len(found["x"]) + len(found["test_x"]) == 20
    again = load_examples(how)
    assert all((again[name] == found[name]).all() for name in found)


def test_nodes_that_train_something_else_are_refused():
    assert curves.check_losses([2.0, 1.0], [2.001, 1.1, 3.0], "x") == pytest.approx(5e-4)
    with pytest.raises(RuntimeError, match="losses of jist-ist-2 are"):
        curves.check_losses([2.0, 1.0], [2.01, 1.0], "jist-ist-2")
    with pytest.raises(RuntimeError, match="say nothing"):
        curves.check_losses([2.0, 1.0], [float("nan"), 1.0], "jist-ist-2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": (1,)}, r"nodes must lie in 2 \.\.\. 250, got \(1,\)"),
        ({"strategies": ("gossip",)}, "strategies must be of .*, got 'gossip'"),
        ({"torch": ("ensemble",)}, "torch must be of .*, got 'ensemble'"),
        ({"targets": ()}, r"targets must lie in \(0, 1\]"),
        ({"bandwidth": ("fast",)}, "bandwidth must be a number and a unit"),
        ({"delay": "soon"}, "delay must be a number and a unit"),
        ({"timed_rounds": 0}, "timed_rounds must be at least 1, got 0"),
        ({"torch": ("ist",), "optimizer": "adam"}, "--torch needs --optimizer sgd"),
        ({"validation": 0.2}, "--validation 0.2 has no effect"),
    ],
)
def test_wrong_options_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        options.NetworkOptions(**given)


def test_pytorch_is_given_the_partitions_that_jist_draws():
    how = options.NetworkOptions(exchange="direct", hidden=(8,), local_steps=1, batch_size=4)
    assert how.how("local_sgd", 2).partition == "uniform"
    examples = {"x": np.ones((8, 3), np.float32), "y": np.zeros(8, np.int32)}
    given = Training(head=how, how=how.how("ist", 2), seed=3, classes=2, examples=examples)
    state = given.strategy.init(3)
    for number, parts in enumerate(given.partitions(2)):
        state, _ = given.strategy.round(state, examples, given.order(number))
        np.testing.assert_array_equal(state.order["hidden1"], parts[0].ravel())
