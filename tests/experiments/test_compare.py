"""The trainings of the comparison, and the epochs at which accuracies are read."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import compare
from experiments.command.errors import UsageError
from experiments.compare import STRATEGIES, CompareOptions, accuracies, make_plan, percent
from experiments.runs.plan import Plan
from experiments.runs.recipes import EACH, TOTAL

PLAN = make_plan(CompareOptions(mask_ratio=0.5, epochs=3, hidden=(8,)))


def test_every_strategy_is_trained_once_on_every_number_of_workers():
    asked = {(s, n, None) for s in (*STRATEGIES,) for n in (1, 2, 4, 8)}
    asked |= {("ist", n, "none") for n in (1, 2, 4, 8)} | {("centralized", 1, None)}
    trainings = [(t.how.strategy, t.how.workers, t.norm) for t in PLAN.trainings]
    assert set(trainings) == asked
    assert len(trainings) == len(asked) == len({t.name for t in PLAN.trainings})


def test_each_worker_sees_the_examples_as_often_as_one_alone():
    for training in PLAN.trainings:
        assert PLAN.head_of(training).epochs == 3 * training.how.workers
        assert PLAN.head_of(training).norm == (training.norm or "standardize")


def test_without_standardisation_nothing_is_trained_twice():
    plan = make_plan(CompareOptions(norm="none", workers=(2, 2)))
    assert [t.how.strategy for t in plan.trainings] == [*STRATEGIES]


def test_where_subnets_are_scaled_there_is_no_ensemble():
    plan = make_plan(CompareOptions(norm="scale", workers=(2,)))
    names = [(t.how.strategy, t.norm) for t in plan.trainings]
    others = [(name, None) for name in ("data_parallel", "local_sgd", "diloco")]
    assert names == [("ist", None), ("ist", "none"), *others]


def test_options_reach_the_strategies_that_take_them():
    options = CompareOptions(
        strategies=("local_sgd", "data_parallel", "ist"),
        workers=(4,),
        participation=0.5,
        outer="nesterov",
    )
    hows = [t.how for t in make_plan(options).trainings if t.norm is None]
    assert [(how.strategy, how.participation, how.outer) for how in hows] == [
        ("local_sgd", 0.5, "none"),
        ("data_parallel", 1.0, "none"),
        ("ist", 0.5, "nesterov"),
    ]
    with pytest.raises(ValueError, match="strategies must be some of .*, got 'fedavg'"):
        CompareOptions(strategies=("fedavg",))


def test_what_no_strategy_takes_is_refused():
    for given, message in (
        ({"participation": 0.5}, "--participation 0.5 has no effect on --strategies data_parallel"),
        ({"outer_lr": 0.5}, "--outer-lr 0.5 has no effect on --strategies data_parallel"),
        ({"partition": "stratified"}, "--partition stratified has no effect on --strategies data"),
    ):
        with pytest.raises(UsageError, match=message):
            CompareOptions(strategies=("data_parallel",), **given)
    with pytest.raises(UsageError, match="--norm scale cannot be used with ensemble"):
        CompareOptions(strategies=("ist", "ensemble"), norm="scale")
    # What is DiLoCo's alone leaves IST without an outer optimiser as it is.
    options = CompareOptions(strategies=("ist", "diloco"), workers=(2,), outer_lr=0.5)
    hows = [t.how for t in make_plan(options).trainings]
    assert [(how.strategy, how.outer_lr) for how in hows] == [
        *[("ist", 0.7)] * 2,
        ("diloco", 0.5),
    ]


def test_only_options_of_its_own_enter_a_name_and_the_configuration():
    names = [training.name for training in PLAN.trainings]
    assert names[:2] == ["ist-1-ratio-0.5", "ist-1-ratio-0.5-norm-none"]
    assert "ist-4-ratio-0.5-each-norm-none" in names
    written = PLAN.config()["trainings"]
    assert not written[0].keys() & {"each", "norm"}
    read = Plan.from_config(json.loads(json.dumps(PLAN.config())))
    assert [t.name for t in read.trainings] == names
    assert read.config() == PLAN.config()
    assert read.head == dataclasses.replace(PLAN.head, batch_size=64)  # written as it is by default


def test_both_comparisons_are_read_off_one_curve(tmp_path):
    results = [
        {"run": "a", "workers": 1, "strategy": "ist", "norm": "standardize"},
        {"run": "b", "workers": 2, "strategy": "ist", "norm": "standardize"},
        {"run": "c", "workers": 2, "strategy": "ist", "norm": "none"},
    ]
    curves = {"a": (0.1, 0.2), "b": (0.3, 0.4, 0.5, 0.6), "c": (0.7, 0.8, 0.9, 1.0)}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for run, curve in curves.items():
            for epoch, accuracy in enumerate(curve, start=1):
                record = {"run": run, "epoch": epoch, "test_accuracy": accuracy}
                file.write(json.dumps(record) + "\n")
    assert accuracies(results, tmp_path, epochs=2) == {
        TOTAL: {"ist": {1: (0.2,), 2: (0.4,)}, "ist, no norm": {2: (0.8,)}},
        EACH: {"ist": {1: (0.2,), 2: (0.6,)}, "ist, no norm": {2: (1.0,)}},
    }
    # Of several seeds there is one value each.
    (tmp_path / "seed-1").mkdir()
    text = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "seed-1" / "metrics.jsonl").write_text(text.replace("0.4", "0.6"))
    both = [results[1], results[1] | {"directory": "seed-1"}]
    lines = accuracies(both, tmp_path, epochs=2)
    assert lines[TOTAL] == {"ist": {2: (0.4, 0.6)}}
    assert percent(lines[TOTAL]["ist"][2]) == "50.0 ± 14.1 %"


def test_examples_are_sharded_where_there_are_several_workers():
    options = CompareOptions(workers=(1, 2), strategies=("ist",), worker_data="sharded", alpha=0.3)
    hows = {t.how.workers: t.how for t in make_plan(options).trainings}
    assert {n: (how.worker_data, how.alpha) for n, how in hows.items()} == {
        1: ("shared", None),
        2: ("sharded", 0.3),
    }
    for wrong, message in (
        ({"alpha": 0.3}, "--alpha 0.3 needs --worker-data sharded, got shared"),
        ({"worker_data": "sharded", "workers": (1,)}, "sharded has no effect with --workers"),
    ):
        with pytest.raises(ValueError, match=message):
            CompareOptions(**wrong)
    with pytest.raises(ValueError, match="--seed 3 has no effect beside --seeds"):
        CompareOptions(seed=3, seeds=(1, 2))


def test_every_seed_is_a_run_of_its_own(tmp_path, capsys):
    options = CompareOptions(
        seeds=(0, 1),
        workers=(2,),
        strategies=("local_sgd",),
        worker_data="sharded",
        dataset="features:" + str(tmp_path / "x.npz"),
        hidden=(4,),
        epochs=1,
        run_dir=tmp_path / "run",
    )
    y = np.arange(60) % 3
    np.savez(tmp_path / "x.npz", x=np.eye(3)[y], y=y)
    compare.main(options)
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert [(r["seed"], r["worker_data"]) for r in results] == [(0, "sharded"), (1, "sharded")]
    assert capsys.readouterr().out.count("±") == 2
    assert (tmp_path / "run" / "comparison.png").stat().st_size > 1000
