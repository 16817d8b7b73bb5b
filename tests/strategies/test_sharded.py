"""The sharded exchange against the replicated one, and what really travels."""

import collections
import functools
import gc
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from rounds import collectives, compiled
from rounds import train as train_rounds

import jist
from jist import costs
from jist.checkpoint import restore, save
from jist.models import MLP
from jist.strategies import IST, workers_mesh

GENERATOR = np.random.default_rng(0)
EXAMPLES = {
    "x": jnp.asarray(GENERATOR.normal(size=(60, 6)), jnp.float32),
    "y": jnp.asarray(GENERATOR.integers(0, 3, 60), jnp.int32),
}


def ist(exchange, *, workers=4, devices=4, hidden=(16, 32), optimizer=None, **options):
    options.setdefault("partition", "stratified")
    return IST(
        MLP((6, *hidden, 3), rngs=nnx.Rngs(0)),
        optimizer or optax.adam(1e-2),
        workers=workers,
        local_steps=3,
        exchange=exchange,
        mesh=workers_mesh(workers, devices),
        **options,
    )


def train(strategy, rounds=2):
    order = np.random.default_rng(1).integers(0, 60, (rounds, strategy.workers, 3, 12))
    return train_rounds(strategy, EXAMPLES, order.astype(np.int32))[0]


@functools.cache
def trained(exchange, devices, workers, hidden):
    """A strategy and its state after two rounds, which nobody donates to a third."""
    strategy = ist(exchange, devices=devices, workers=workers, hidden=hidden)
    return strategy, train(strategy)


def assert_close(a, b, tolerance=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=tolerance)


@pytest.mark.parametrize(
    ("hidden", "workers", "devices"), [((16, 32), 4, 4), ((16, 32), 8, 2), ((20, 12), 4, 4)]
)
def test_sharded_is_replicated_under_the_same_partition(hidden, workers, devices):
    """With 20 and 12 neurons the slots are padded; with 8 workers a device plays four of them."""
    _, sharded = trained("sharded", devices, workers, hidden)
    _, replicated = trained("replicated", 1, workers, hidden)
    assert_close(sharded.params, replicated.params)
    assert_close(sharded.opt_state, replicated.opt_state)


def test_a_device_holds_its_share_and_the_network_works_as_it_lies():
    strategy, state = trained("sharded", 4, 4, (16, 32))
    middle = state.params["layers"][1]["kernel"]
    assert {shard.data.shape for shard in middle.addressable_shards} == {(4, 32)}
    moments = state.opt_state[0].mu["layers"][0]["kernel"]
    assert {shard.data.shape for shard in moments.addressable_shards} == {(6, 4)}
    replicated, whole = trained("replicated", 1, 4, (16, 32))
    networks = [strategy.model(state), replicated.model(whole)]
    for network in networks:
        jist.calibrate(network, EXAMPLES["x"])
    np.testing.assert_allclose(*(n(EXAMPLES["x"]) for n in networks), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "exchange", "reason"),
    [
        ({}, "sharded", "each of 4 devices receives in a round: 0.00"),
        ({"devices": 1}, "replicated", "one device"),
        # As many bytes as replicated, and half as much to hold.
        ({"devices": 2, "workers": 8, "hidden": (64, 64)}, "sharded", "each of 2 devices"),
        ({"hidden": (18, 32)}, "replicated", "got 18 neurons of 'hidden1'"),
        ({"partition": "uniform"}, "replicated", "needs partition='stratified', got 'uniform'"),
        # Of five neurons for every owner two slots are for each of eight workers: most are empty.
        ({"devices": 2, "workers": 8, "hidden": (10, 10)}, "replicated", "MB sharded"),
    ],
)
def test_the_exchange_is_chosen_by_what_is_possible_and_its_bytes(options, exchange, reason):
    strategy = ist("auto", **options)
    assert strategy.exchange == exchange
    assert reason in strategy.exchange_reason


def test_bytes_of_a_device_are_those_of_its_workers():
    """With a worker on every device, what `bytes_received` counts; else of all its workers."""
    for name, state_dtype in (("replicated", None), ("sharded", None), ("sharded", "log8")):
        strategy = ist(name, hidden=(20, 12), state_dtype=state_dtype)
        widths = strategy._assignment.part_widths
        trees = [(tree, axes, widths, 4, 4, wire) for tree, axes, wire in strategy._travelling()]
        received = sum(costs.exchange_bytes(*tree)[name] for tree in trees)
        assert strategy.bytes_received(1, 3) == received
    # On two devices: half of two subnets, out and back, and the bias; or two pieces.
    params, axes, _ = ist("sharded")._travelling()[0]
    named, bias = 4 * (6 * 4 + 4 * 8 + 8 * 3), 4 * 3
    received = costs.exchange_bytes(params, axes, {"hidden1": 4, "hidden2": 8}, 4, 2)
    assert received == {"sharded": 2 * named + bias, "replicated": 2 * (named + bias)}


def test_a_sharded_checkpoint_moves_to_another_number_of_devices(tmp_path):
    _, state = trained("sharded", 4, 4, (16, 32))
    save(tmp_path / "c", 1, state, {"test_accuracy": 0.0})
    back = restore(tmp_path / "c", ist("sharded", devices=2).init(0))
    assert_close(back.params, state.params, 0)
    assert len(back.params["layers"][1]["kernel"].sharding.device_set) == 2


def test_collectives_of_the_sharded_program_carry_the_counted_bytes():
    strategy = ist("sharded", hidden=(64, 32), optimizer_state="reset")
    found = collectives(compiled(strategy, EXAMPLES))
    workers, losses = 4, 4 * 4
    # All-to-all: out and back, a subnet's worth of named leaves, of which 1/n stays with its owner.
    subnet = strategy._worker_shapes()[0]
    bias = 3 * 4
    assert found["all-to-all"] == 2 * (costs.size_bytes(subnet) - bias)
    assert found["all-gather"] == losses
    assert found["all-reduce"] == bias
    counted = found["all-to-all"] * (workers - 1) // workers + math.ceil(2 * bias * 3 / 4)
    assert strategy.bytes_received(1, 3) == counted


def test_the_worker_receives_the_papers_subnet():
    """Without biases, what is sent out is the paper's count for a site (VLDB 2022, §2.3)."""
    widths, workers = (6, 64, 32, 3), 4
    strategy = ist("sharded", hidden=widths[1:-1], optimizer_state="reset")
    subnet = strategy._worker_shapes()[0]
    kernels = costs.size_bytes(subnet) - 3 * 4
    # The paper's sum over all sites counts N_{i-1} N_i / n for the inner layers.
    assert kernels == pytest.approx(costs.ist_bytes_paper(widths, workers, 1))


def test_floats_may_travel_as_bfloat16():
    _, exact = trained("sharded", 4, 4, (16, 32))
    narrow = train(ist("sharded", exchange_dtype=jnp.bfloat16))
    for x, y in zip(jax.tree.leaves(exact.params), jax.tree.leaves(narrow.params), strict=True):
        assert y.dtype == x.dtype
        np.testing.assert_allclose(x, y, atol=0.1)
    narrow = ist("sharded", exchange_dtype=jnp.bfloat16, optimizer_state="reset")
    named = costs.size_bytes(narrow._worker_shapes()[0]) - 3 * 4
    assert collectives(compiled(narrow, EXAMPLES))["all-to-all"] == 2 * named // 2
    sent = [ist("sharded", exchange_dtype=t).bytes_received(1, 3) for t in (None, jnp.bfloat16)]
    averaged = 3 * math.ceil(2 * 3 * 12 / 4)  # the output's bias and its moments stay wide
    assert 2 * (sent[1] - averaged) == sent[0] - averaged


@pytest.mark.parametrize("exchange", ["sharded", "replicated"])
def test_owners_keep_what_codes_of_eight_bits_leave_out(exchange):
    """Where nothing is learned nothing changes, and errors of changes do not add up."""
    still = ist(exchange, devices=2, optimizer=optax.sgd(0.0), exchange_dtype="log8")
    for x, y in zip(
        jax.tree.leaves(train(still).params), jax.tree.leaves(still.init(7).params), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    ends = [
        train(ist(exchange, devices=2, optimizer=optax.sgd(0.05), exchange_dtype=wire), rounds=8)
        for wire in (None, "log8")
    ]
    start = still.init(7).params
    moved, apart = (
        sum(float(jnp.sum((x - y) ** 2)) for x, y in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((ends[0].params, start), (ends[0].params, ends[1].params))
    )
    assert 0 < apart < 0.2**2 * moved, (apart / moved) ** 0.5


def test_moments_may_travel_as_codes_and_parameters_as_they_are():
    _, exact = trained("sharded", 4, 4, (16, 32))
    coded = ist("sharded", state_dtype="log8")
    found = collectives(compiled(coded, EXAMPLES))
    numbers = costs.count(coded._worker_shapes()[0]) - 3  # the output's bias is averaged
    leaves = len(jax.tree.leaves(coded._params)) - 1
    scales = 2 * 2 * leaves * 4 * 4  # out and back of two moments: a float32 for each device
    assert found["all-to-all"] == 2 * numbers * (4 + 1 + 1) + scales
    averaged = 3 * math.ceil(2 * 3 * 12 / 4)
    assert coded.bytes_received(1, 3) == found["all-to-all"] * 3 // 4 + averaged
    state = train(coded)
    for x, y in zip(jax.tree.leaves(exact.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(x, y, atol=0.02)


def test_wrong_combinations_are_named():
    model = MLP((6, 16, 32, 3), rngs=nnx.Rngs(0))
    options = {"workers": 4, "local_steps": 1}
    with pytest.raises(ValueError, match="needs partition='stratified', got 'uniform'"):
        IST(model, optax.sgd(0.1), **options, exchange="sharded")
    with pytest.raises(ValueError, match="the 4 devices divide, got 18 neurons of 'hidden1'"):
        ist("sharded", hidden=(18, 32))


def test_no_device_comes_near_the_whole_network():
    """Compiled, not run: 210 million parameters on four devices, beside their Adam moments."""
    widths = (1024, 9984, 9984, 9984, 10)
    model = nnx.eval_shape(lambda: MLP(widths, rngs=nnx.Rngs(0)))
    shapes = nnx.to_pure_dict(nnx.state(model))
    # Zeros of NumPy take no memory before they are written to.
    nnx.update(model, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes))
    strategy = IST(
        model,
        optax.adam(1e-3),
        workers=4,
        local_steps=5,
        partition="stratified",
        exchange="sharded",
        mesh=workers_mesh(4, 4),
    )
    examples = {
        "x": jax.ShapeDtypeStruct((256, 1024), jnp.float32),
        "y": jax.ShapeDtypeStruct((256,), jnp.int32),
    }
    order = jax.ShapeDtypeStruct((4, 5, 64), jnp.int32)
    state = jax.eval_shape(lambda: strategy.init(0))
    memory = strategy._round.lower(state, strategy._rest, examples, order).compile()
    memory = memory.memory_analysis()
    network = costs.size_bytes(strategy._params)
    owned = 3 * network / 4
    subnet = costs.size_bytes(strategy._worker_shapes()[0])
    assert network > 4 * 200e6
    assert memory.argument_size_in_bytes < owned + 4e6  # examples and the output's bias beside it
    # Parameters, gradients, two moments, one buffer to pack, and what XLA does not reuse.
    assert memory.temp_size_in_bytes < 8 * subnet
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes < 0.5 * 3 * network


def test_no_device_starts_with_more_than_its_share():
    there = {id(array) for array in jax.live_arrays()}
    strategy = ist("sharded", hidden=(512, 1024))
    state = strategy.init(0)
    gc.collect()
    held = collections.Counter()
    for array in jax.live_arrays():
        if id(array) not in there:
            for shard in array.addressable_shards:
                held[shard.device] += shard.data.nbytes
    network = costs.size_bytes(state.params)
    assert len(held) == 4
    assert max(held.values()) < 1.05 * 3 * network / 4


def test_evaluation_gathers_no_parameter():
    strategy = ist("sharded", hidden=(64, 128))
    network = strategy.model(strategy.init(0))
    network.eval()
    graphdef, state = nnx.split(network)

    @jax.jit
    def logits(state, x):
        return nnx.merge(graphdef, state)(x)

    text = logits.lower(state, EXAMPLES["x"]).compile().as_text()
    kernel = 64 * 128
    gathered = [
        math.prod(int(n) for n in size.split(","))
        for size in re.findall(r"f32\[([\d,]+)\]\S* all-gather\(", text)
    ]
    assert "all-reduce" in text
    assert max(gathered, default=0) < kernel // 4
