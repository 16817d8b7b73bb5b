"""An epoch that was cut off goes on between two rounds, with the bits of an undisturbed one."""

import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from jist import trained, trainer
from jist.checkpoint import Checkpoints
from jist.metrics import MetricsLog
from jist.models import MLP
from jist.recovery import epochs_in
from jist.strategies import IST
from jist.within_epoch import NAME, WithinEpoch

GENERATOR = np.random.default_rng(0)
EPOCHS, STEPS, EVERY = 3, 10, 2  # steps of an epoch, in rounds of two; the last ends it


class Killed(Exception):
    pass


@functools.cache  # compiled once
def strategy():
    model = MLP((6, 12, 9, 3), rngs=nnx.Rngs(0))
    return IST(model, optax.adam(1e-2), workers=2, local_steps=2)


def examples(count):
    y = GENERATOR.integers(0, 3, count).astype(np.int32)
    return {"x": GENERATOR.normal(size=(count, 6)).astype(np.float32) + y[:, None], "y": y}


TRAIN, TEST = examples(8 * 2 * STEPS), examples(30)


def fit(directory, **options):
    directory.mkdir(exist_ok=True)
    with MetricsLog(directory, "run") as log:
        history = trainer.train(
            strategy(),
            TRAIN,
            TEST,
            epochs=EPOCHS,
            batch_size=8,
            seed=1,
            checkpoints=directory / "checkpoints",
            log=log,
            **{"checkpoint_every": EVERY} | options,
        )
    return [{name: of for name, of in epoch.items() if name != "seconds"} for epoch in history]


def state(directory):
    like = strategy().init(0)
    with Checkpoints(directory / "checkpoints", must_exist=True) as saved:
        found = saved.restore(trained.saved_of(like, strategy().model(like)), EPOCHS)["state"]
    return jax.tree.leaves((found.params, found.opt_state))


def die_before(monkeypatch, round_number, counted):
    """The process ends when it would begin a round; what was being saved gets saved."""
    whole = IST.round

    def until(self, *arguments):
        counted.append(0)
        if len(counted) == round_number:
            raise Killed
        return whole(self, *arguments)

    monkeypatch.setattr(IST, "round", until)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return fit(directory, checkpoint_every=None), state(directory), directory


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_rounds_it_ends_with_the_same_bits(
    seed, undisturbed, tmp_path, monkeypatch
):
    chance = np.random.default_rng(seed)
    began = []
    for _ in range(3):
        with monkeypatch.context() as patch:
            counted = []
            die_before(patch, int(chance.integers(2, 9)), counted)
            try:
                fit(tmp_path / "run")
                break
            except Killed:
                began.append(len(counted) - 1)
    counted = []
    die_before(monkeypatch, -1, counted)
    history = fit(tmp_path / "run")
    whole, expected, directory = undisturbed
    assert history == whole
    for ours, theirs in zip(state(tmp_path / "run"), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # No more than two rounds are done again after a kill, and nothing is left of them.
    assert len(counted) + sum(began) <= EPOCHS * STEPS // 2 + EVERY * len(began)
    kept = [
        sorted(path.name for path in (d / "checkpoints").iterdir())
        for d in (tmp_path / "run", directory)
    ]
    assert kept[0] == kept[1]


def test_a_damaged_one_costs_its_epoch_and_one_of_another_training_is_refused(
    undisturbed, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patch:
        die_before(patch, 10, [])  # in the second epoch, after its fourth round
        with pytest.raises(Killed):
            fit(tmp_path / "run")
    within = tmp_path / "run" / "checkpoints" / NAME
    assert epochs_in(within) == [STEPS + 2 * 4]
    with pytest.raises(ValueError, match="of another training; .*: seed is 1 there and 2 here"):
        WithinEpoch(within.parent, 1, {"seed": 2}).begun(
            trainer.Begun(strategy().init(0), np.zeros(2, np.float32), STEPS), 2 * STEPS
        )
    for file in within.rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    counted = []
    die_before(monkeypatch, -1, counted)
    assert fit(tmp_path / "run") == undisturbed[0]
    assert len(counted) == 2 * STEPS // 2
    assert "its epoch begins anew" in caplog.text
    assert not within.exists()


def test_without_the_option_what_is_there_is_used(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_before(patch, 4, [])
        with pytest.raises(Killed):
            fit(tmp_path / "run")
    assert fit(tmp_path / "run", checkpoint_every=None) == undisturbed[0]
