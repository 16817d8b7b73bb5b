import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist import trained, trainer
from jist.checkpoint import Checkpoints
from jist.data import OnDisk
from jist.evaluation import evaluate, predict
from jist.metrics import MetricsLog
from jist.models import MLP
from jist.probabilities import fit_temperature
from jist.strategies import IST, Centralized, DiLoCo, nesterov
from jist.tasks import Task, regression

GENERATOR = np.random.default_rng(0)
CENTRES = GENERATOR.normal(size=(3, 6)) * 2


def blobs(count):
    y = np.sort(GENERATOR.integers(0, 3, count)).astype(np.int32)
    return {"x": (CENTRES[y] + GENERATOR.normal(size=(count, 6))).astype(np.float32), "y": y}


TRAIN, TEST = blobs(150), blobs(60)
WHOLE = blobs(128)  # for rounds of four steps only, which are one program


@functools.cache  # compiled once
def build_strategy(workers):
    model = MLP((6, 12, 9, 3), rngs=nnx.Rngs(0))
    return IST(model, optax.adam(1e-2), workers=workers, local_steps=4)


def fit(
    directory,
    epochs,
    *,
    workers=2,
    log=None,
    train=TRAIN,
    validation=None,
    on_epoch=None,
    block=None,
    temperature=None,
):
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
            on_epoch=on_epoch,
            block=block,
            temperature_examples=temperature,
        )
    return strategy, history


def state_at(directory, strategy, epoch):
    like = trained.saved_of(strategy.init(0), strategy.model(strategy.init(0)))
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


def test_a_checkpoint_keeps_the_temperature_fitted_on_examples_of_its_own(tmp_path):
    held = blobs(90)
    strategy, history = fit(tmp_path, 2, temperature=held)
    _, plain = fit(tmp_path / "plain", 2)
    assert [h["test_loss"] for h in history] == [h["test_loss"] for h in plain]
    checkpoints = tmp_path / "checkpoints"
    model, temperature, _ = trainer.restore_calibrated(strategy, checkpoints, "last")
    assert temperature == history[-1]["temperature"] != history[0]["temperature"]
    expected = fit_temperature(np.asarray(predict(model, held["x"])), held["y"])
    assert temperature == pytest.approx(expected, rel=1e-3)
    # Those without, of earlier versions say, have none.
    _, none, _ = trainer.restore_calibrated(strategy, tmp_path / "plain" / "checkpoints", "last")
    assert none is None


def test_examples_on_disk_train_to_the_same_bits_as_those_in_memory(tmp_path):
    """In the same order: blocks of eight rows."""
    np.save(tmp_path / "x.npy", TRAIN["x"])
    table = np.load(tmp_path / "x.npy", mmap_mode="r")
    on_disk = TRAIN | {"x": OnDisk(table, np.arange(len(table)))}
    strategy, here = fit(tmp_path / "memory", 2, block=8)
    _, there = fit(tmp_path / "disk", 2, train=on_disk, block=8)
    timeless = [[m | {"seconds": 0} for m in history] for history in (here, there)]
    assert timeless[0] == timeless[1]
    both = [state_at(tmp_path / name, strategy, 2) for name in ("memory", "disk")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    with pytest.raises(ValueError, match="block is 8 there"):
        fit(tmp_path / "disk", 3, train=on_disk, block=16)


class Killed(Exception):
    pass


class KilledLog(MetricsLog):
    def append(self, metrics):
        super().append(metrics)
        if metrics["epoch"] == 3:  # the line is written, the checkpoint is not
            raise Killed


def timeless(records):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def test_an_interrupted_run_ends_with_the_same_bits_and_one_with_a_damaged_checkpoint(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    strategy, history = fit(tmp_path / "whole", 5)
    with pytest.raises(Killed):
        fit(tmp_path / "killed", 5, log=KilledLog(tmp_path / "killed", "run"))
    _, resumed = fit(tmp_path / "killed", 5)
    (tmp_path / "killed" / "checkpoints" / "5" / "metrics" / "metrics").write_text("{")
    assert timeless(fit(tmp_path / "killed", 5)[1]) == timeless(resumed)
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


# 128 examples in batches of 16: epoch 1 ends with step 8; no training loss covers its outcome.
@pytest.mark.parametrize(
    ("step", "message", "last"),
    [
        (10, r"training loss, .* of epoch 2 is not finite; .* epoch 1 is kept", 1),
        (15, "test loss of epoch 2 is not finite; .* epoch 1 is kept", 1),
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
            WHOLE,
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


def train_on(directory, strategy, train, test=TEST, *, epochs=2, **options):
    directory.mkdir(exist_ok=True)
    with MetricsLog(directory, "run") as log:
        return trainer.train(
            strategy,
            train,
            test,
            epochs=epochs,
            batch_size=16,
            seed=0,
            checkpoints=directory / "checkpoints",
            log=log,
            **options,
        )


def central(outputs=3, optimizer=None, **options):
    model = MLP((6, 8, outputs), rngs=nnx.Rngs(0))
    return Centralized(model, optimizer or optax.sgd(0.1), local_steps=4, **options)


def test_a_longer_run_is_a_finished_one_that_went_on(tmp_path):
    for name in ("whole", "longer"):
        (tmp_path / name).mkdir()
    strategy, history = fit(tmp_path / "whole", 5)
    _, short = fit(tmp_path / "longer", 2)
    _, longer = fit(tmp_path / "longer", 5)
    assert longer[:2] == short  # seconds too: they were not trained again
    assert timeless(longer) == timeless(history)
    pairs = [state_at(tmp_path / name, strategy, 5) for name in ("whole", "longer")]
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [IST, DiLoCo])
def test_absent_workers_and_outer_optimisers_go_on_where_they_stopped(kind, tmp_path):
    """Half of the workers see as many examples in an epoch, in twice the steps."""

    def strategy(**options):
        model = MLP((6, 12, 9, 3), rngs=nnx.Rngs(0))
        options = {"participation": 0.5, "outer": nesterov(), "ema_decay": 0.9, **options}
        return kind(model, optax.adam(1e-3), workers=4, local_steps=4, **options)

    built = strategy()
    whole = train_on(tmp_path / "whole", built, TRAIN)
    assert whole[0]["examples_seen"] in range(150, 150 + 2 * 16)
    assert whole[-1]["round"] == -(-whole[-1]["examples_seen"] // (2 * 16 * 4)) + 1
    train_on(tmp_path / "longer", built, TRAIN, epochs=1)
    longer = train_on(tmp_path / "longer", built, TRAIN)
    assert timeless(longer) == timeless(whole)
    both = [state_at(tmp_path / name, built, 2) for name in ("whole", "longer")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    with pytest.raises(ValueError, match="participants is 2 there and 3 here"):
        train_on(tmp_path / "longer", strategy(participation=0.75), TRAIN, epochs=3)
    with pytest.raises(ValueError, match="outer optimizer"):
        train_on(tmp_path / "longer", strategy(outer=nesterov(0.3)), TRAIN, epochs=3)
    with pytest.raises(ValueError, match=r"ema decay is 0\.9 there and None here"):
        train_on(tmp_path / "longer", strategy(ema_decay=None), TRAIN, epochs=3)


def falling(steps):
    """With a schedule that depends on the end."""
    return optax.sgd(optax.cosine_decay_schedule(0.1, steps))


def test_another_optimizer_does_not_go_on_with_a_training(tmp_path, monkeypatch):
    train_on(tmp_path, central(optimizer=falling(20)), WHOLE)
    for other in (optax.sgd(0.1), optax.sgd(optax.constant_schedule(0.1)), falling(30)):
        with pytest.raises(ValueError, match=r"another training; .*: optimizer \(by JAX .* there"):
            train_on(tmp_path, central(optimizer=other), WHOLE, epochs=3)
    assert len(train_on(tmp_path, central(optimizer=falling(20)), WHOLE, epochs=3)) == 3

    # Another version of JAX or Optax may write the same one down otherwise.
    other = {"optimizer (by JAX 9.9 and Optax 9.9)": "0"}
    monkeypatch.setattr(trained, "optimizer_fingerprint", lambda *_: other)
    assert len(train_on(tmp_path, central(optimizer=falling(20)), WHOLE, epochs=4)) == 4


def squared(model, batch):
    return jnp.square(model(batch["x"])[:, 0] - batch["y"]).mean()


def twice_squared(model, batch):
    return 2 * squared(model, batch)


def test_another_loss_does_not_go_on_with_a_training(tmp_path):
    def go_on(loss, epochs):
        return train_on(
            tmp_path, central(loss=loss), WHOLE, task=Task(loss, best="loss"), epochs=epochs
        )

    go_on(squared, 1)
    with pytest.raises(ValueError, match=r"another training; .*: network and loss \(by .* there"):
        go_on(twice_squared, 2)
    assert len(go_on(squared, 2)) == 2


def test_labels_beyond_the_outputs_stop_before_the_first_step(tmp_path):
    beyond = {"x": TRAIN["x"], "y": TRAIN["y"] + 1}
    message = r"must lie in \[0, 3\), .* got 1 to 3"
    anew = trainer.Renewed(TRAIN, lambda epoch: beyond)
    for train, test in ((beyond, TEST), (TRAIN, beyond), (anew, TEST)):
        with pytest.raises(ValueError, match=message):
            train_on(tmp_path, central(), train, test)
    with pytest.raises(ValueError, match=message):
        train_on(tmp_path, central(), TRAIN, validation_examples=beyond)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_function_after_every_epoch_stops_a_run_and_it_stays_stopped(tmp_path):
    seen = []

    def on_epoch(history, model):
        accuracy = evaluate(model, TEST)["test_accuracy"]
        seen.append((len(history), accuracy == history[-1]["test_accuracy"]))
        return len(history) == 3

    _, stopped = fit(tmp_path, 6, on_epoch=on_epoch)
    assert seen == [(1, True), (2, True), (3, True)]
    assert len(stopped) == 3
    seen.clear()
    _, again = fit(tmp_path, 6, on_epoch=on_epoch)
    assert seen == [(3, True)]
    assert again == stopped
    _, whole = fit(tmp_path, 4, on_epoch=lambda history, model: None)
    assert (whole[:3], len(whole)) == (stopped, 4)


def two_heads_loss(model, batch):
    found, size = model(batch["image"])
    error = jnp.square(size - batch["label"]["size"])
    cross = optax.sigmoid_binary_cross_entropy(found, batch["label"]["there"])
    return cross.mean() + error.mean()


def two_heads_sums(model, batch):
    found, there = model(batch["image"])[0] > 0, batch["label"]["there"] > 0
    return {"both": jnp.sum(found & there), "found": found.sum(), "there": there.sum()}


def two_heads_f1(sums):
    return {"f1": 2 * sums["both"] / (sums["found"] + sums["there"])}


class TwoHeads(nnx.Module):
    def __init__(self):
        self.body = MLP((6, 12, 2), rngs=nnx.Rngs(0))

    def __call__(self, image):
        out = self.body(image)
        return out[:, 0], out[:, 1]


def two_head_examples(examples):
    there = (examples["y"] == 1).astype(np.float32)
    return {"image": examples["x"], "label": {"there": there, "size": examples["x"].sum(axis=1)}}


def test_a_task_and_examples_of_ones_own(tmp_path):
    """A tree of arrays, a loss of two terms, F1; the best epoch is the one with the best F1."""
    task = Task(
        two_heads_loss, two_heads_sums, two_heads_f1, best="f1", inputs=lambda batch: batch["image"]
    )
    model = TwoHeads()
    strategy = IST(model, optax.adam(0.03), workers=2, local_steps=4, loss=task.loss)
    train, test = two_head_examples(WHOLE), two_head_examples(TEST)
    history = train_on(tmp_path, strategy, train, test, epochs=5, task=task)
    scores = [metrics["test_f1"] for metrics in history]
    assert scores[-1] > 0.8
    assert "test_accuracy" not in history[0]
    network = trainer.restore_model(strategy, tmp_path / "checkpoints", "best", task=task)
    found, there = (
        np.asarray(network(jnp.asarray(test["image"]))[0]) > 0,
        test["label"]["there"] > 0,
    )
    f1 = 2 * (found & there).sum() / (found.sum() + there.sum())
    assert f1 == pytest.approx(max(scores))
    assert evaluate(network, test, task)["test_f1"] == pytest.approx(f1)


def test_the_best_epoch_of_a_lower_is_better_task_has_the_lowest(tmp_path):
    """Targets of the test that get farther away while the network learns."""
    loss = regression().loss
    task = Task(loss)
    strategy = central(1, loss=loss)
    train = {"x": WHOLE["x"], "y": WHOLE["x"][:, :1]}
    test = {"x": TEST["x"], "y": -TEST["x"][:, :1]}
    history = train_on(tmp_path, strategy, train, test, epochs=4, task=task)
    losses = [metrics["test_loss"] for metrics in history]
    assert np.argmin(losses) != np.argmax(losses)
    best = trainer.restore_model(strategy, tmp_path / "checkpoints", "best", task=task)
    assert evaluate(best, test, task)["test_loss"] == pytest.approx(min(losses), rel=1e-6)
    with pytest.raises(ValueError, match="best is 'test_loss' there and 'test_r2' here"):
        train_on(tmp_path, strategy, train, test, epochs=5, task=regression())


def test_a_strategy_that_trains_another_loss_is_refused(tmp_path):
    message = (
        "got softmax_cross_entropy and a task with squared_error; build it with loss=task.loss"
    )
    with pytest.raises(ValueError, match=message):
        train_on(tmp_path, central(), TRAIN, task=regression())
