import math
import pathlib
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.checkpoint import CheckpointError, Checkpoints, restore, save
from jist.models import MLP
from jist.strategies import IST, State, workers_mesh


def state_of(seed=0, devices=1):
    model = MLP((4, 8, 8, 3), rngs=nnx.Rngs(seed))
    strategy = IST(model, optax.adam(1e-2), workers=4, local_steps=2, mesh=workers_mesh(4, devices))
    return strategy.init(seed)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_a_state_comes_back_bit_by_bit_with_its_key(tmp_path):
    state = state_of()
    save(tmp_path / "c", 3, state, {"test_accuracy": 0.5})
    assert_equal(restore(tmp_path / "c", state_of(seed=1)), state)


def test_a_state_without_an_order_is_saved_as_before_states_had_one():
    """Else runs of before could not be gone on with, evaluated or exported."""
    old = State(*"abcd")
    children, _ = jax.tree_util.default_registry.flatten_one_level(old)
    assert [*children] == [*"abcd"]
    for state in (old, State(*"abcde")):
        assert jax.tree.map(str.upper, state) == State(*map(str.upper, jax.tree.leaves(state)))


def test_a_checkpoint_moves_between_numbers_of_devices(tmp_path):
    state = state_of(devices=4)
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.5})
    back = restore(tmp_path / "c", state_of(seed=1, devices=2))
    assert_equal(back, state)
    assert len(back.params["layers"][0]["kernel"].sharding.device_set) == 2


def test_the_last_and_the_best_are_kept(tmp_path):
    state = state_of()
    with Checkpoints(tmp_path / "c") as checkpoints:
        for epoch, accuracy in enumerate([0.1, 0.9, 0.3, 0.9, 0.2], start=1):
            checkpoints.save(epoch, state, {"test_accuracy": accuracy})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.last == 5
        assert checkpoints.best == 2  # the first of equals
    assert sum(path.is_dir() for path in (tmp_path / "c").iterdir()) == 2


@pytest.mark.parametrize(("higher", "best"), [(True, 2), (False, 3)])
def test_the_best_epoch_is_that_of_the_metrics_direction(tmp_path, higher, best):
    state = {"a": jnp.zeros(3)}
    with Checkpoints(tmp_path / "c", metric="f1", higher_is_better=higher) as checkpoints:
        for epoch, value in enumerate([0.5, 0.9, 0.2, math.nan, 0.2, 0.9], start=1):
            checkpoints.save(epoch, state, {"f1": value})
        assert checkpoints.best == best
    kept = {path.name for path in (tmp_path / "c").iterdir() if path.name.isdigit()}
    assert kept == {str(best), "6"}


def test_checkpoints_that_do_not_say_their_epoch_are_gone_on_with(tmp_path):
    """Checkpoints of an earlier version, which did not save the epoch among the metrics."""
    state = {"a": jnp.zeros(3)}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints._checkpointer.save(1, state, metrics={"test_accuracy": 0.9})
        for epoch in (2, 3):
            checkpoints.save(epoch, state, {"test_accuracy": 0.9})
        assert checkpoints.best == 1


def test_what_is_saved_is_the_state_at_the_call(tmp_path):
    """A donated state is overwritten in place by the next round, while the file is written."""
    state = {"a": jnp.arange(1_000_000.0)}
    expected = np.array(state["a"])
    overwrite = jax.jit(lambda s: {"a": -s["a"] - 1}, donate_argnums=0)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, state, {"test_accuracy": 0.0})
        for _ in range(5):
            state = overwrite(state)
    np.testing.assert_array_equal(restore(tmp_path / "c", {"a": state["a"]})["a"], expected)


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="is not a directory"):
        restore(tmp_path / "nowhere", state_of())
    save(tmp_path / "c", 1, state_of(), {"test_accuracy": 0.5})
    with pytest.raises(CheckpointError, match=r"no checkpoint of epoch 2 .* there are \[1\]"):
        restore(tmp_path / "c", state_of(), epoch=2)


def test_checkpoints_of_another_training_are_refused(tmp_path):
    state = {"a": jnp.zeros(3)}
    with Checkpoints(tmp_path / "c", of={"workers": 2, "seed": 0}) as checkpoints:
        checkpoints.save(1, state, {"test_accuracy": 0.5})
    with (
        Checkpoints(tmp_path / "c", of={"workers": 4, "seed": 0}) as checkpoints,
        pytest.raises(ValueError, match=r"another training; .*: workers is 2 there and 4 here$"),
    ):
        checkpoints.restore(state)
    assert_equal(restore(tmp_path / "c", state), state)  # without `of` there is no check


def test_a_checkpoint_without_its_metric_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"metrics must hold 'test_accuracy', got \['loss'\]"):
        save(tmp_path / "c", 1, state_of(), {"loss": 0.5})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.last is None


DAMAGES = {
    "every file cut short": ("**/d/*", 10),
    "the index missing": ("manifest.ocdbt", None),
    "what the index names missing": ("d/*", None),
    "the arrays missing": ("ocdbt.process_0/d/*", None),
    "the arrays cut short": ("ocdbt.process_0/d/*", 5_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told(tmp_path, damage, monkeypatch):
    """Damage is found before Orbax reads; its late failures would disturb a later test."""
    state = {name: jnp.arange(3000.0) + i for i, name in enumerate("abcdef")}
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.5})
    pattern, end = DAMAGES[damage]
    files = list((tmp_path / "c" / "1" / "state").glob(pattern))
    files = [file for file in files if file.stat().st_size > (end or 0)]
    assert files
    for file in files:
        content = file.read_bytes()
        file.unlink()
        if end is not None:
            file.write_bytes(content[:end])
            assert end < len(content)
    with Checkpoints(tmp_path / "c") as checkpoints:
        monkeypatch.setattr(checkpoints._checkpointer, "load", lambda *_: pytest.fail("let loose"))
        with pytest.raises(CheckpointError, match="is damaged or of another model"):
            checkpoints.restore(state)


def test_a_flipped_bit_is_found(tmp_path):
    state = {"a": jnp.arange(3000.0)}
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.5})
    largest = max((tmp_path / "c" / "1" / "state").rglob("*"), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{largest} is not what was written"):
        restore(tmp_path / "c", state)


@pytest.mark.parametrize("content", ["", "[1]", '{"test_accuracy": '])
def test_damaged_metrics_are_named(tmp_path, content):
    save(tmp_path / "c", 1, {"a": jnp.zeros(3)}, {"test_accuracy": 0.5})
    file = tmp_path / "c" / "1" / "metrics" / "metrics"
    file.write_text(content)
    with pytest.raises(CheckpointError, match=f"{file} is no JSON object of numbers"):
        restore(tmp_path / "c", {"a": jnp.zeros(3)})


def test_checkpoints_from_before_digests_were_kept_are_read(tmp_path):
    state = {"a": jnp.arange(3.0)}
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.5})
    (tmp_path / "c" / "1" / "digests.json").unlink()
    assert_equal(restore(tmp_path / "c", state), state)


def test_what_cannot_be_written_is_told_in_one_line(tmp_path):
    state, directory = {"a": jnp.zeros(3)}, tmp_path / "c"
    checkpoints = Checkpoints(directory)
    checkpoints.save(1, state, {"test_accuracy": 0.5})
    checkpoints.close()
    shutil.rmtree(directory)
    directory.write_text("a file has taken its place")
    with pytest.raises(CheckpointError, match="cannot write .*: NotADirectoryError: .*") as told:
        save(directory, 2, state, {"test_accuracy": 0.5})
    assert "\n" not in str(told.value)


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_neither_saves_nor_trainings_leave_files_or_threads_open(tmp_path):
    """Each save of Orbax has an event loop of its own: a thread and three descriptors."""

    def held():
        return len(list(pathlib.Path("/proc/self/fd").iterdir())), threading.active_count()

    state = {"a": jnp.zeros(3)}
    save(tmp_path / "first", 1, state, {"test_accuracy": 0.5})
    before = held()
    for training in range(3):
        with Checkpoints(tmp_path / str(training)) as checkpoints:
            for epoch in range(1, 9):
                checkpoints.save(epoch, state, {"test_accuracy": 0.5})
        restore(tmp_path / str(training), state)
    descriptors, threads = held()
    # Reading leaves a pool of a few threads behind, until it is collected; 24 saves leave nothing.
    assert descriptors <= before[0] + 4
    assert threads <= before[1] + 6


def damage(checkpoint):
    files = (path for path in (checkpoint / "state").rglob("*") if path.is_file())
    file = max(files, key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])


def test_a_damaged_last_checkpoint_is_set_aside_and_its_epoch_can_be_saved_again(tmp_path, caplog):
    state = {"a": jnp.arange(3.0)}
    with Checkpoints(tmp_path, metric=None, keep=3) as checkpoints:
        for epoch in (1, 2, 3):
            checkpoints.save(epoch, {"a": state["a"] + epoch}, {})
    damage(tmp_path / "3")
    with Checkpoints(tmp_path, metric=None, must_exist=True) as reader:
        assert reader.last == 3  # who only reads is told, and changes nothing
        with pytest.raises(CheckpointError, match=r"3 is damaged or of another model"):
            reader.restore(state)
    damage(tmp_path / "2")
    with Checkpoints(tmp_path, metric=None, keep=3) as checkpoints:
        assert checkpoints.last == 1
        assert_equal(checkpoints.restore(state), {"a": state["a"] + 1})
        for epoch in (2, 3):
            checkpoints.save(epoch, state, {})
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        *("1", "2", "3", "damaged-2", "damaged-3")
    }
    newest, second = caplog.messages
    assert newest.startswith("the checkpoint of epoch 3 is damaged and now called")
    assert "epoch 2 is damaged" in second
    assert "going on from that of epoch 1" in second


def test_what_is_kept_after_a_kill_follows_from_what_was_reached(tmp_path):
    """A kill between writing a checkpoint and removing the one before leaves one too many."""
    state = {"a": jnp.zeros(3)}
    accuracies = [0.1, 0.9, 0.3, 0.2]
    with Checkpoints(tmp_path / "c") as checkpoints:
        for epoch, accuracy in enumerate(accuracies, start=1):
            if epoch == 4:
                checkpoints.wait()
                shutil.copytree(tmp_path / "c" / "3", tmp_path / "3")
            checkpoints.save(epoch, state, {"test_accuracy": accuracy})
    shutil.copytree(tmp_path / "3", tmp_path / "c" / "3")  # as if it had not been removed yet
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert (checkpoints.last, checkpoints.best) == (4, 2)
    assert {path.name for path in (tmp_path / "c").iterdir() if path.is_dir()} == {"2", "4"}
