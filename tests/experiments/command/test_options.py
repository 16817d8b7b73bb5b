"""The options of strategies: what they build, and its name."""

import dataclasses
import json

import pytest

from experiments.command.options import HeadOptions, ImageOptions, StrategyOptions
from experiments.distributed import DistributedOptions
from experiments.runs.heads import STRATEGIES, build_strategy
from experiments.runs.plan import Plan, Training
from jist import strategies

HEAD = HeadOptions(hidden=(8, 8), batch_size=64)
SHARDED = StrategyOptions(workers=2, exchange="sharded", partition="stratified")
NARROW = dataclasses.replace(SHARDED, exchange_dtype="bfloat16")
CODED = dataclasses.replace(SHARDED, state_dtype="log8")


def build(how):
    return build_strategy(3, 2, HEAD, how, 0, devices=1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("centralized", strategies.Centralized),
        ("data_parallel", strategies.DataParallel),
        ("local_sgd", strategies.LocalSGD),
        ("diloco", strategies.DiLoCo),
        ("ensemble", strategies.Ensemble),
        ("ist", strategies.IST),
    ],
)
def test_one_word_names_each_strategy(name, kind):
    how = StrategyOptions(strategy=name, workers=1 if name == "centralized" else 2, local_steps=7)
    strategy = build(how)
    assert type(strategy) is kind
    assert type(build(StrategyOptions(**how.config()))) is kind  # as `evaluate` does
    assert (strategy.workers, strategy.local_steps) == (how.workers, 7)


def test_the_exchange_and_its_type_reach_the_strategy():
    replicated = build(dataclasses.replace(SHARDED, exchange="replicated"))
    sharded, narrow = build(SHARDED), build(NARROW)
    assert sharded.bytes_received(1, 1) < replicated.bytes_received(1, 1)
    assert narrow.bytes_received(1, 1) < sharded.bytes_received(1, 1)
    assert build(CODED).bytes_received(1, 1) < 0.8 * sharded.bytes_received(1, 1)
    crossed = dataclasses.replace(SHARDED, exchange="auto", partition="crossed")
    assert build(crossed).exchange == "direct"
    assert build(StrategyOptions(**crossed.config())).exchange == "direct"
    assert build(crossed).bytes_received(1, 1) < sharded.bytes_received(1, 1)
    for option, value, message in (
        ("state_dtype", "int3", "state_dtype must be one of"),
        ("optimizer_state", "reset", "state_dtype needs --optimizer-state carry"),
    ):
        with pytest.raises(ValueError, match=message):
            build(dataclasses.replace(CODED, **{option: value}))
    with pytest.raises(ValueError, match="exchange_dtype must be one of"):
        build(dataclasses.replace(SHARDED, exchange_dtype="int3"))


def test_trainings_that_differ_in_what_travels_have_names_of_their_own():
    hows = [StrategyOptions(strategy=name) for name in STRATEGIES]
    hows += [SHARDED, NARROW, CODED, StrategyOptions(workers=2)]
    hows += [StrategyOptions(participation=0.5), StrategyOptions(outer="nesterov")]
    hows += [StrategyOptions(strategy="diloco", outer_lr=0.3), StrategyOptions(ema_decay=0.9)]
    names = [Training(mask_ratio=ratio, how=how).name for how in hows for ratio in (0.5, 0.75)]
    assert len(set(names)) == len(names)
    assert "ist-2-ratio-0.5" in names


def test_a_plan_reads_back_from_its_configuration():
    absent = StrategyOptions(participation=0.5, outer="nesterov", outer_lr=0.3, ema_decay=0.9)
    trainings = tuple(Training(mask_ratio=0.5, how=how) for how in (NARROW, absent))
    plan = Plan(experiment="x", images=ImageOptions(), head=HEAD, trainings=trainings)
    read = Plan.from_config(json.loads(json.dumps(plan.config())))
    # How pieces travel decides nothing of a result: it is written as before there was a choice.
    of_absent = dataclasses.replace(absent, exchange="replicated")
    assert [training.how for training in read.trainings] == [NARROW, of_absent]
    assert dataclasses.replace(read, trainings=trainings) == plan
    assert not StrategyOptions().config().keys() & {"outer", "outer_lr", "ema_decay"}


def test_the_batch_of_a_small_data_set_is_lowered_and_one_that_was_asked_for_is_refused():
    assert HeadOptions().batch_of(4, 10_000) == 64
    assert HeadOptions().batch_of(4, 120) == 30
    assert HeadOptions(batch_size=30).batch_of(4, 120) == 30
    with pytest.raises(ValueError, match="--batch-size 31 of 4 .* needs 124 .* are 120: lower --b"):
        HeadOptions(batch_size=31).batch_of(4, 120)


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (HeadOptions, {"learning_rate": -1e-3}, "learning_rate must be positive, got -0.001"),
        (HeadOptions, {"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        (HeadOptions, {"learning_rate": float("inf")}, "learning_rate must be positive, got inf"),
        (HeadOptions, {"epochs": 0}, "epochs must be at least 1, got 0"),
        (HeadOptions, {"hidden": (8, 0)}, r"hidden must be at least 1, got \(8, 0\)"),
        (HeadOptions, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (HeadOptions, {"validation": 1.0}, r"validation must lie in \[0, 1\), got 1.0"),
        (StrategyOptions, {"workers": 0}, "workers must be at least 1, got 0"),
        (StrategyOptions, {"local_steps": 0}, "local_steps must be at least 1, got 0"),
        (ImageOptions, {"mask_ratio": 1.0}, r"mask_ratio must lie in \[0, 1\), got 1.0"),
        (ImageOptions, {"mask_ratio": 0.5, "natural_masks": True}, "--mask-ratio 0.5 has no"),
    ],
)
def test_impossible_options_are_refused(group, options, message):
    with pytest.raises(ValueError, match=message):
        group(**options)


def test_centralised_training_is_one_workers():
    assert DistributedOptions().workers == 4
    assert DistributedOptions(strategy="centralized").workers == 1
    assert DistributedOptions(strategy="centralized", workers=2).workers == 2  # refused later
