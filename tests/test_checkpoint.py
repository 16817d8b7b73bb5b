import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.checkpoint import CheckpointError, Checkpoints, restore, save
from jist.models import MLP
from jist.strategies import IST, workers_mesh


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


def test_checkpoints_that_do_not_say_their_epoch_are_gone_on_with(tmp_path):
    """As they were written before it counted among equals."""
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
    assert_equal(restore(tmp_path / "c", state), state)  # nobody asked


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
    "the arrays cut short": ("ocdbt.process_0/d/*", 20_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told(tmp_path, damage, monkeypatch):
    """Before Orbax reads it: of its reads, those that fail late would disturb a later test."""
    state = {name: jnp.arange(3000.0) + i for i, name in enumerate("abcdef")}
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.5})
    pattern, end = DAMAGES[damage]
    files = list((tmp_path / "c" / "1" / "state").glob(pattern))
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
