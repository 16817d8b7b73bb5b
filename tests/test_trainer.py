import functools
import json

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jist import trainer
from jist.checkpoint import Checkpoints
from jist.evaluation import evaluate
from jist.metrics import MetricsLog
from jist.models import MLP
from jist.strategies import IST, Centralized

GENERATOR = np.random.default_rng(0)
CENTRES = GENERATOR.normal(size=(3, 6)) * 2


def blobs(count):
    y = np.sort(GENERATOR.integers(0, 3, count)).astype(np.int32)
    return {"x": (CENTRES[y] + GENERATOR.normal(size=(count, 6))).astype(np.float32), "y": y}


TRAIN, TEST = blobs(150), blobs(60)


@functools.cache  # compiled once
def build_strategy(workers):
    model = MLP((6, 12, 9, 3), rngs=nnx.Rngs(0))
    return IST(model, optax.adam(1e-2), workers=workers, local_steps=4)


def fit(directory, epochs, *, workers=2, log=None, train=TRAIN, validation=None):
    strategy = build_strategy(workers)
    with log or MetricsLog(directory, "run") as log:
        history = trainer.train(
            strategy,
            train,
            TEST,
            epochs=epochs,
            batch_size=16,
            seed=5,
            checkpoints=directory / "checkpoints",
            log=log,
            validation_examples=validation,
            calibration_examples=100,
        )
    return strategy, history


def state_at(directory, strategy, epoch):
    like = trainer._saved(strategy.init(0), strategy.model(strategy.init(0)))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        return jax.tree.leaves(checkpoints.restore(like, epoch)["state"].params)


def test_training_learns_and_its_checkpoint_evaluates_to_the_logged_accuracy(tmp_path):
    strategy, history = fit(tmp_path, 6)
    assert history[-1]["test_accuracy"] > 0.85
    model = trainer.restore_model(strategy, tmp_path / "checkpoints", "last")
    measured = evaluate(model, TEST)
    assert measured["test_accuracy"] == history[-1]["test_accuracy"]
    assert measured["test_loss"] == pytest.approx(history[-1]["test_loss"], rel=1e-6)
    best = trainer.restore_model(strategy, tmp_path / "checkpoints", "best")
    expected = max(metrics["test_accuracy"] for metrics in history)
    assert evaluate(best, TEST)["test_accuracy"] == expected


class Killed(Exception):
    pass


class KilledLog(MetricsLog):
    def append(self, metrics):
        super().append(metrics)
        if metrics["epoch"] == 3:  # the line is written, the checkpoint is not
            raise Killed


def timeless(records):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    strategy, history = fit(tmp_path / "whole", 5)
    with pytest.raises(Killed):
        fit(tmp_path / "killed", 5, log=KilledLog(tmp_path / "killed", "run"))
    _, resumed = fit(tmp_path / "killed", 5)
    pairs = [state_at(tmp_path / name, strategy, 5) for name in ("whole", "killed")]
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a, b)

    assert timeless(resumed) == timeless(history)
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5]


def test_examples_made_anew_are_those_of_the_epoch_before_and_after_a_kill(tmp_path):
    asked = []

    def of_epoch(epoch):
        asked.append(epoch)
        noise = np.random.default_rng(epoch).normal(size=TRAIN["x"].shape)
        return {"x": (TRAIN["x"] + noise).astype(np.float32), "y": TRAIN["y"]}

    train = trainer.Renewed(TRAIN, of_epoch)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    strategy, history = fit(tmp_path / "whole", 5, train=train)
    assert asked == [1, 2, 3, 4, 5]
    with pytest.raises(Killed):
        fit(tmp_path / "killed", 5, train=train, log=KilledLog(tmp_path / "killed", "run"))
    asked.clear()
    _, resumed = fit(tmp_path / "killed", 5, train=train)
    assert asked == [3, 4, 5]
    assert timeless(resumed) == timeless(history)
    pairs = [state_at(tmp_path / name, strategy, 5) for name in ("whole", "killed")]
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_examples_made_anew_without_a_change_train_like_those_that_stay(tmp_path):
    for name in ("stay", "anew"):
        (tmp_path / name).mkdir()
    _, stay = fit(tmp_path / "stay", 2)
    _, anew = fit(tmp_path / "anew", 2, train=trainer.Renewed(TRAIN, lambda epoch: dict(TRAIN)))
    assert timeless(anew) == timeless(stay)


def test_validation_examples_choose_the_best_epoch(tmp_path):
    # Labels that are wrong on purpose: the network gets worse at them while it learns.
    wrong = {"x": TEST["x"], "y": (TEST["y"] + 1) % 3}
    strategy, history = fit(tmp_path, 6, validation=wrong)
    chosen = max(history, key=lambda metrics: metrics["validation_accuracy"])
    by_test = max(history, key=lambda metrics: metrics["test_accuracy"])
    assert chosen["test_accuracy"] < by_test["test_accuracy"]
    best = trainer.restore_model(strategy, tmp_path / "checkpoints", "best", validation=True)
    assert evaluate(best, wrong)["test_accuracy"] == chosen["validation_accuracy"]
    assert evaluate(best, TEST)["test_accuracy"] == chosen["test_accuracy"]


def test_an_epoch_with_a_partial_round_loses_no_step(tmp_path):
    # 150 examples on 2 workers with batches of 16: 5 steps an epoch, in rounds of 4 and 1.
    _, history = fit(tmp_path, 2)
    assert [metrics["round"] for metrics in history] == [2, 4]
    assert [metrics["examples_seen"] for metrics in history] == [160, 320]


def test_calibration_examples_are_drawn_from_all_rows():
    rows = trainer.calibration_subset(np.arange(1000), 100, seed=0)
    assert len(np.unique(rows)) == 100
    assert rows.max() > 900
    np.testing.assert_array_equal(rows, trainer.calibration_subset(np.arange(1000), 100, seed=0))


# 150 examples in batches of 16: epoch 1 ends with step 10; no training loss covers its outcome.
@pytest.mark.parametrize(
    ("step", "message", "last"),
    [
        (12, r"training loss, .* of epoch 2 is not finite; .* epoch 1 is kept", 1),
        (18, "test loss of epoch 2 is not finite; .* epoch 1 is kept", 1),
        (3, r"training loss, .* of epoch 1 is not finite; nothing is saved yet", None),
    ],
)
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path, step, message, last
):
    model = MLP((6, 8, 3), norm=None, rngs=nnx.Rngs(0))
    schedule = optax.piecewise_constant_schedule(0.01, {step: 1e38})
    strategy = Centralized(model, optax.sgd(schedule), workers=1, local_steps=4)
    with (
        pytest.raises(FloatingPointError, match=message),
        MetricsLog(tmp_path, "run") as log,
    ):
        trainer.train(
            strategy,
            TRAIN,
            TEST,
            epochs=3,
            batch_size=16,
            seed=0,
            checkpoints=tmp_path / "checkpoints",
            log=log,
        )
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.last == last


def test_a_training_goes_on_from_no_other(tmp_path):
    """Otherwise a loop over workers in a notebook would always read the first results."""
    fit(tmp_path, 2)
    with pytest.raises(ValueError, match=r"another training; .*: workers is 2 there and 4 here"):
        fit(tmp_path, 3, workers=4)
    with pytest.raises(ValueError, match=r"log has 0 of the 2 epochs"):
        fit(tmp_path, 3, log=MetricsLog(tmp_path, "other"))
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fit(tmp_path, 0)


def test_an_epoch_in_which_no_worker_takes_a_step_is_refused(tmp_path):
    some = {name: array[:100] for name, array in TRAIN.items()}
    with pytest.raises(ValueError, match="at most the 100 examples .* got 8 x 16"):
        fit(tmp_path, 3, workers=8, train=some)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    model = MLP((6, 8, 3), rngs=nnx.Rngs(0))
    strategy = Centralized(model, optax.sgd(0.1), workers=1, local_steps=4)
    with (
        pytest.raises(ValueError, match="batch_size must be between 1 and the 150 examples"),
        MetricsLog(tmp_path, "run") as log,
    ):
        trainer.train(
            strategy,
            TRAIN,
            TEST,
            epochs=1,
            batch_size=151,
            seed=0,
            checkpoints=tmp_path / "checkpoints",
            log=log,
        )
    assert not (tmp_path / "checkpoints").exists()
