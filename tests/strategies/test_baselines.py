"""The strategies that independent subnet training is compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rounds
from flax import nnx

import jist
from jist.models import MLP
from jist.strategies import IST, Centralized, DataParallel, Ensemble, LocalSGD, workers_mesh
from jist.strategies.strategy import Strategy

GENERATOR = np.random.default_rng(0)
EXAMPLES = {
    "x": jnp.asarray(GENERATOR.normal(size=(60, 6)), jnp.float32),
    "y": jnp.asarray(GENERATOR.integers(0, 3, 60), jnp.int32),
}


def mlp(norm=None):
    return MLP((6, 9, 8, 3), norm=norm, rngs=nnx.Rngs(0))


def orders(workers, rounds=2, steps=3, batch=8):
    shape = (rounds, workers, steps, batch)
    return np.random.default_rng(1).integers(0, 60, shape).astype(np.int32)


def train(strategy, order):
    return rounds.train(strategy, EXAMPLES, order)[0]


@functools.cache
def trained(kind, devices):
    """A strategy of four workers on some devices, each of which trains its workers in turn."""
    options = {"workers": 4, "local_steps": 3, "mesh": workers_mesh(4, devices)}
    strategy = kind(mlp("standardize"), optax.adam(0.01), **options)
    return strategy, train(strategy, orders(4))


def assert_close(a, b, tolerance=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=tolerance)


def test_data_parallel_is_centralised_training_on_the_joint_batch():
    order = orders(4)
    joint = np.swapaxes(order, 1, 2).reshape(2, 1, 3, 32)
    parallel = train(DataParallel(mlp(), optax.adam(0.01), workers=4, local_steps=3), order)
    whole = train(Centralized(mlp(), optax.adam(0.01), workers=1, local_steps=3), joint)
    assert_close(parallel.params, whole.params)


def test_local_sgd_averages_workers_that_were_trained_apart():
    order = orders(4, rounds=1)
    model, adam = mlp("standardize"), optax.adam(0.01)
    together = train(LocalSGD(model, adam, workers=4, local_steps=3), order)
    alone = Centralized(model, adam, workers=1, local_steps=3)
    apart = [train(alone, order[:, i : i + 1]) for i in range(4)]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(s.params for s in apart))
    assert_close(together.params, mean)
    moments = jax.tree.map(lambda *m: np.mean(m, axis=0), *(s.opt_state[0].mu for s in apart))
    assert_close(together.opt_state[0].mu, moments)


@pytest.mark.parametrize("strategy", [DataParallel, LocalSGD, Ensemble])
def test_one_worker_is_centralised_training(strategy):
    order = orders(1)
    one = strategy(mlp("standardize"), optax.adam(0.01), workers=1, local_steps=3)
    whole = Centralized(mlp("standardize"), optax.adam(0.01), workers=1, local_steps=3)
    params = nnx.to_pure_dict(nnx.state(one.model(train(one, order)), nnx.Param))
    assert_close(params, train(whole, order).params)


def test_networks_that_fill_the_caches_are_trained_by_all_cores_at_once(monkeypatch):
    def devices(strategy):
        return strategy(mlp(), optax.sgd(0.1), workers=4, local_steps=1).mesh.size

    subnet = IST(mlp(), optax.sgd(0.1), workers=4, local_steps=1).parameters_per_worker
    monkeypatch.setattr("jist.strategies.strategy.MOST_BYTES_PER_CORE", 4 * subnet)
    assert [devices(strategy) for strategy in (IST, Ensemble, LocalSGD)] == [4, 4, 1]
    monkeypatch.setattr("jist.strategies.strategy.MOST_BYTES_PER_CORE", 4 * subnet - 1)
    assert devices(IST) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices(IST) == 4


@pytest.mark.parametrize("strategy", [IST, LocalSGD, Ensemble])
def test_workers_of_a_device_train_in_turn_as_they_do_at_once(strategy, monkeypatch):
    """On a CPU they take turns; what other devices do runs here as well."""
    _, in_turn = trained(strategy, 1)
    monkeypatch.setattr(Strategy, "_on_cpu", False)
    _, at_once = trained.__wrapped__(strategy, 1)
    assert_close(in_turn.params, at_once.params)
    assert_close(in_turn.opt_state, at_once.opt_state)


@pytest.mark.parametrize("strategy", [DataParallel, LocalSGD, Ensemble])
def test_the_number_of_devices_does_not_matter(strategy):
    (_, few), (_, many) = (trained(strategy, devices) for devices in (1, 4))
    assert_close(few.params, many.params)


def test_an_ensemble_is_the_first_deal_of_ist_for_ever():
    """One round of both trains the same subnets; IST keeps the other weights, an ensemble none."""
    order = orders(3, rounds=1)
    options = {"workers": 3, "local_steps": 3}
    ensemble = Ensemble(mlp(), optax.adam(0.01), **options)
    apart = nnx.to_pure_dict(nnx.state(ensemble.model(train(ensemble, order)), nnx.Param))
    together = train(IST(mlp(), optax.adam(0.01), **options), order).params
    middle, full = apart["layers"][1]["kernel"], together["layers"][1]["kernel"]
    inside = np.asarray(middle) != 0
    # Nine and eight neurons on three workers: three of each, but for one short hand.
    assert 9 * 8 / 3 - 3 <= inside.sum() <= 9 * 8 / 3
    np.testing.assert_allclose(np.asarray(middle)[inside], np.asarray(full)[inside], atol=1e-6)
    for layer in (0, 2):
        assert_close(apart["layers"][layer], together["layers"][layer])


def test_the_assembled_ensemble_adds_the_outputs_of_its_members():
    ensemble, state = trained(Ensemble, 4)
    network = ensemble.model(state)
    jist.calibrate(network, EXAMPLES["x"])
    members = []
    for worker in range(4):
        layers = [
            {k: np.float64(v[worker]) for k, v in state.params["layers"][i].items()}
            for i in range(3)
        ]
        x = np.float64(EXAMPLES["x"])
        for layer in layers[:-1]:
            z = x @ layer["kernel"]
            x = np.maximum((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5), 0)
        members.append((x @ layers[-1]["kernel"], layers[-1]["bias"]))
    logits = sum(m[0] for m in members) + np.mean([m[1] for m in members], axis=0)
    np.testing.assert_allclose(network(EXAMPLES["x"]), logits, atol=1e-4)


def test_bytes_of_a_round():
    size = 4 * (6 * 9 + 9 + 9 * 8 + 8 + 8 * 3 + 3)
    options = {"workers": 4, "local_steps": 3}
    parallel = DataParallel(mlp(), optax.sgd(0.1), **options)
    assert parallel.bytes_received(rounds=2, steps=6) == 6 * (2 * 3 * size) // 4
    local = LocalSGD(mlp(), optax.sgd(0.1), **options)
    assert local.bytes_received(rounds=2, steps=6) == 2 * (2 * 3 * size) // 4
    carried = LocalSGD(mlp(), optax.adam(0.1), **options)  # two moments, and a counter that stays
    assert carried.bytes_received(rounds=2, steps=6) == 2 * (2 * 3 * 3 * size) // 4
    assert Ensemble(mlp(), optax.sgd(0.1), **options).bytes_received(2, 6) == 0
