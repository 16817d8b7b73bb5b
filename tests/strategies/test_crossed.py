"""Neurons that are sent straight on, against NumPy and against what the program really sends."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
import rounds
from flax import nnx

from jist import costs
from jist.checkpoint import restore, save
from jist.ist import crossed
from jist.models import MLP
from jist.strategies import IST, nesterov, workers_mesh

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 6)).astype(np.float32)
Y = GENERATOR.integers(0, 3, 60).astype(np.int32)
EXAMPLES = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}


def ist(*, workers=2, devices=2, hidden=(16, 8), optimizer=None, **options):
    options.setdefault("partition", "crossed")
    return IST(
        MLP((6, *hidden, 3), rngs=nnx.Rngs(0)),
        optimizer or optax.adam(1e-2),
        workers=workers,
        local_steps=3,
        mesh=workers_mesh(workers, devices),
        **options,
    )


def order_of(workers, number=3):
    drawn = np.random.default_rng(1).integers(0, 60, (number, workers, 3, 12))
    return drawn.astype(np.int32)


@functools.cache
def trained(workers=2, devices=2, hidden=(16, 8)):
    """A strategy and its state after three rounds, which nobody donates to a fourth."""
    strategy = ist(workers=workers, devices=devices, hidden=hidden)
    return strategy, rounds.train(strategy, EXAMPLES, order_of(workers))[0]


def parameters(strategy, state):
    return nnx.to_pure_dict(nnx.state(strategy.model(state), nnx.Param))


def assert_close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=tolerance)


def kernels_and_biases(params):
    layers = [params["layers"][i] for i in sorted(params["layers"])]
    kernels = [np.float64(layer["kernel"]) for layer in layers]
    return kernels, [np.float64(layer["bias"]) if "bias" in layer else None for layer in layers]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("width", "workers"), [(8, 2), (54, 3), (128, 4)])
def test_every_pair_of_holder_and_owner_gives_every_worker_as_many(width, workers, seed):
    draw = jax.jit(crossed.draw, static_argnums=2)
    order = {"h": crossed.first_order(width, workers)}
    part = width // workers
    for number in range(4):
        key = jax.random.fold_in(jax.random.key(seed), number)
        slots = np.asarray(draw(key, order, workers)["h"])
        assert sorted(slots.ravel()) == list(range(width))
        assert (np.diff(slots // part, axis=1) >= 0).all()
        neurons = np.asarray(order["h"])[slots]
        counts = np.zeros((workers, workers, workers), int)
        worker = np.broadcast_to(np.arange(workers)[:, None], slots.shape)
        np.add.at(counts, (worker, slots // part, neurons // part), 1)
        assert (counts == width // workers**3).all()
        order = {"h": neurons.ravel()}


def test_over_rounds_every_two_neurons_meet_as_often():
    workers, width, number = 2, 16, 600
    order = {"h": jnp.asarray(crossed.first_order(width, workers))}

    def step(order, key):
        slots = crossed.draw(key, order, workers)
        order = {"h": order["h"][slots["h"]].ravel()}
        return order, order["h"]

    keys = jax.random.split(jax.random.key(0), number)
    held = np.asarray(jax.jit(lambda: jax.lax.scan(step, order, keys)[1])())
    worker = np.empty_like(held)
    np.put_along_axis(worker, held, np.arange(width)[None] // (width // workers), axis=1)
    together = (worker[:, :, None] == worker[:, None, :]).mean(axis=0)
    # Neurons of one owner are kept apart a little, those of two brought together, as if stratified.
    one_owner = np.arange(width)[:, None] // 8 == np.arange(width)[None] // 8
    off_diagonal = ~np.eye(width, dtype=bool)
    for pairs, expected in ((one_owner & off_diagonal, 3 / 7), (~one_owner, 1 / 2)):
        assert np.abs(together[pairs] - expected).max() < 5 * 0.5 / math.sqrt(number / 2)


@pytest.mark.parametrize("hidden", [(16,), (16, 8)])
@pytest.mark.parametrize("devices", [1, 2])
def test_three_rounds_of_adam_agree_with_numpy(hidden, devices):
    strategy, state = trained(devices=devices, hidden=hidden)
    kernels, biases = kernels_and_biases(strategy._params)
    adam = oracle.Adam(1e-2)
    moments = [() if a is None else adam.start(a) for a in [*kernels, *biases]]
    keys = [jax.random.fold_in(jax.random.key(rounds.SEED), t) for t in range(3)]
    drawn = crossed.rounds(keys, strategy._assignment.widths, 2)
    for t, (rows, parts) in enumerate(zip(order_of(2), drawn, strict=True)):
        held = [np.asarray(part) for part in parts.values()]
        kernels, biases, moments, _ = oracle.ist_round(
            kernels, biases, moments, 3 * t, adam, held, X, Y, rows, "standardize", carry=True
        )
    found = kernels_and_biases(parameters(strategy, state))
    for arrays, wanted in zip(found, (kernels, biases), strict=True):
        for array, expected in zip(arrays, wanted, strict=True):
            if expected is not None:
                np.testing.assert_allclose(array, expected, atol=3e-4)
    for row, part in zip(state.order.values(), held, strict=True):
        np.testing.assert_array_equal(row, part.ravel())


def test_the_network_is_the_given_one_before_the_first_round():
    strategy = ist()
    assert_close(parameters(strategy, strategy.init(0)), strategy._params, 0)
    assert strategy.exchange == "direct"


def test_a_checkpoint_moves_to_another_number_of_devices_and_goes_on(tmp_path):
    strategy, state = trained(devices=2)
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.0})
    one, _ = trained(devices=1)
    back = restore(tmp_path / "c", one.init(0))
    assert_close(parameters(one, back), parameters(strategy, state), 0)
    same = restore(tmp_path / "c", strategy.init(0))
    first = same.params["layers"][0]["kernel"]
    assert {shard.data.shape for shard in first.addressable_shards} == {(6, 8)}
    row = order_of(2)[0]
    ends = [
        parameters(how, how.round(begun, jax.device_put(EXAMPLES, how.replicated), row)[0])
        for how, begun in ((one, back), (strategy, same))
    ]
    assert_close(*ends, 1e-5)


def test_a_worker_receives_what_belongs_to_its_neurons_once():
    """The kernel between two layers of neurons comes and goes; all else only comes."""
    strategy = ist(optimizer_state="reset")
    found = rounds.collectives(rounds.compiled(strategy, EXAMPLES))
    alone, between, bias = 4 * (6 * 8 + 4 * 3), 4 * 8 * 4, 4 * 3
    assert found["all-to-all"] == alone + 2 * between
    assert found["all-reduce"] == bias
    received = found["all-to-all"] // 2 + bias
    assert strategy.bytes_received(1, 3) == received
    # Plain SGD, the paper's 3-layer speech network: at most 1.05 of 1/n and 1/n² of the model.
    shapes = nnx.eval_shape(lambda: MLP((4096, 8192, 8192, 35), rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(shapes, nnx.Param))
    axes = IST(  # the axes of a narrow one are the same
        MLP((8, 8, 8, 3), rngs=nnx.Rngs(0)), optax.sgd(0.1), workers=2, local_steps=1
    )._assignment.axes
    paper = costs.ist_bytes_paper((4096, 8192, 8192, 35), 8, 1)
    assert costs.direct_bytes(params, axes, 8) <= 1.05 * paper


def test_floats_may_travel_as_bfloat16():
    strategy = ist(exchange_dtype=jnp.bfloat16)
    state, _ = rounds.train(strategy, EXAMPLES, order_of(2))
    assert_close(parameters(strategy, state), parameters(*trained()), 0.1)
    assert strategy.bytes_received(1, 3) < 0.6 * trained()[0].bytes_received(1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (12,)}, "widths that the cube of the 2 workers, 8, divides, got 12 neurons"),
        ({"exchange": "sharded"}, "needs exchange='direct' or 'auto', got 'sharded'"),
        ({"exchange": "direct", "partition": "stratified"}, "needs partition='crossed', got 'str"),
        ({"replicas": 2}, "needs replicas=1, got 2"),
        ({"participation": 0.5}, "needs participating workers=2, got 1"),
        ({"outer": nesterov()}, "needs outer=None"),
    ],
)
def test_what_cannot_be_sent_on_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ist(**options)
