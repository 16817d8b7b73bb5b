"""DiLoCo, outer optimisers of IST, and rounds with absent workers, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
import rounds
from flax import nnx

from jist import costs
from jist.ist import partition
from jist.models import MLP
from jist.strategies import IST, DiLoCo, Ensemble, LocalSGD, nesterov, participants, workers_mesh
from jist.strategies.participation import participation_weights

GENERATOR = np.random.default_rng(0)
N, D, C, B = 60, 5, 3, 12
X = GENERATOR.normal(size=(N, D)).astype(np.float32)
Y = GENERATOR.integers(0, C, N).astype(np.int32)
EXAMPLES = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}
ROUNDS, STEPS = 4, 3
DEVICES = (1, 8)


def mlp(*hidden):
    return MLP((D, *hidden, C), norm="standardize", rngs=nnx.Rngs(3))


def orders(workers):
    shape = (ROUNDS, workers, STEPS, B)
    return np.random.default_rng(1).integers(0, N, shape).astype(np.int32)


def train(strategy, order):
    return rounds.train(strategy, EXAMPLES, order)


def arrays_of(params):
    layers = [params["layers"][i] for i in sorted(params["layers"])]
    kernels = [np.float64(layer["kernel"]) for layer in layers]
    return [*kernels, *(np.float64(x["bias"]) if "bias" in x else None for x in layers)]


def start_of(model):
    arrays = arrays_of(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return arrays, len(arrays) // 2, [None if a is None else 0 * a for a in arrays]


def present_in(number, workers, share):
    k = participants(workers, share)
    weights = participation_weights(jax.random.key(rounds.SEED), jnp.asarray(number), workers, k)
    return None if weights is None else [w for w in range(workers) if weights[w] > 0]


def assert_agrees(state, losses, arrays, wanted, tolerance=2e-4):
    # Adam divides by the gradient's own size, which magnifies float32 rounding.
    np.testing.assert_allclose(losses, wanted, rtol=tolerance, atol=tolerance)
    for array, expected in zip(arrays_of(state.params), arrays, strict=True):
        if expected is not None:
            np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance)


def numpy_diloco(order, outer, share):
    arrays, depth, momenta = start_of(mlp(9, 7))
    inner = oracle.Adam(0.01)
    own = [[() if a is None else inner.start(a) for a in arrays] for _ in order[0]]
    counts, losses = [0] * len(order[0]), []
    for t, rows in enumerate(order):
        present = present_in(t, len(rows), share)
        arrays, own, counts, momenta, loss = oracle.diloco_round(
            *(arrays, depth, own, counts, momenta, inner, outer),
            *(X, Y, rows, "standardize", present),
        )
        losses.append(loss)
    return arrays, losses


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_diloco_agrees_with_numpy_on_any_number_of_devices(share):
    order = orders(8)
    expected = numpy_diloco(order, oracle.Nesterov(0.7, 0.9), share)
    for devices in DEVICES:
        strategy = DiLoCo(
            mlp(9, 7),
            optax.adam(0.01),
            workers=8,
            local_steps=STEPS,
            participation=share,
            mesh=workers_mesh(8, devices),
        )
        assert_agrees(*train(strategy, order), *expected)


@pytest.mark.parametrize("in_turn", [True, False])
def test_local_sgd_averages_those_that_take_part(in_turn, monkeypatch):
    """Of plain SGD, DiLoCo whose outer optimiser takes the whole step."""
    monkeypatch.setattr("jist.strategies.strategy.Strategy._on_cpu", in_turn)
    order = orders(8)
    options = {"workers": 8, "local_steps": STEPS, "participation": 0.4}
    mesh = workers_mesh(8, 2)
    counting = optax.sgd(optax.constant_schedule(0.05))
    one, losses = train(LocalSGD(mlp(9, 7), counting, **options, mesh=mesh), order)
    outer = DiLoCo(mlp(9, 7), counting, **options, outer=optax.sgd(1.0), mesh=mesh)
    other, other_losses = train(outer, order)
    np.testing.assert_allclose(losses, other_losses, atol=1e-5)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    # Counters are those of workers that took part: three of eight, in every round.
    (count,) = jax.tree.leaves(one.opt_state)
    assert int(count) == ROUNDS * STEPS


def numpy_ist(order, share, outer, carry, hidden=(16, 8), **drawing):
    arrays, depth, momenta = start_of(mlp(*hidden))
    optimizer, losses = oracle.Adam(0.01), []
    states = [() if a is None else optimizer.start(a) for a in arrays]
    widths = dict(zip(("hidden1", "hidden2"), hidden, strict=True))
    for t, rows in enumerate(order):
        key = jax.random.fold_in(jax.random.key(rounds.SEED), t)
        drawn = partition(key, widths, len(rows), **drawing, round_number=t)
        parts = [[r[r < w] for r in np.asarray(drawn[name])] for name, w in widths.items()]
        kernels, biases, states, loss = oracle.ist_round(
            *(arrays[:depth], arrays[depth:], states, t * STEPS, optimizer, parts),
            *(X, Y, rows, "standardize", carry, present_in(t, len(rows), share)),
        )
        if outer is None:
            arrays = [*kernels, *biases]
        else:
            arrays, momenta = outer.round(arrays, [*kernels, *biases], momenta, still=True)
        losses.append(loss)
    return arrays, losses


@pytest.mark.parametrize(
    ("share", "outer", "state"), [(0.5, False, "reset"), (1.0, True, "reset"), (0.5, True, "carry")]
)
def test_ist_agrees_with_numpy_by_either_exchange(share, outer, state):
    order = orders(8)
    if outer:
        outer = oracle.Nesterov(0.5, 0.6)
    expected = numpy_ist(order, share, outer or None, state == "carry", scheme="stratified")
    for devices, exchange in ((1, "replicated"), (8, "sharded")):
        strategy = IST(
            mlp(16, 8),
            optax.adam(0.01),
            workers=8,
            local_steps=STEPS,
            partition="stratified",
            exchange=exchange,
            optimizer_state=state,
            participation=share,
            outer=nesterov(0.5, 0.6) if outer else None,
            mesh=workers_mesh(8, devices),
        )
        assert_agrees(*train(strategy, order), *expected)


@pytest.mark.parametrize(
    ("drawing", "share"), [({"scheme": "rolling"}, 1.0), ({"replicas": 2}, 0.75)]
)
def test_windows_that_move_and_neurons_on_two_workers_agree_with_numpy(drawing, share):
    """With widths that four workers do not divide."""
    order = orders(4)
    expected = numpy_ist(order, share, None, True, hidden=(10, 7), **drawing)
    options = {name.replace("scheme", "partition"): value for name, value in drawing.items()}
    for devices in (1, 4):
        strategy = IST(
            mlp(10, 7),
            optax.adam(0.01),
            workers=4,
            local_steps=STEPS,
            participation=share,
            mesh=workers_mesh(4, devices),
            **options,
        )
        assert_agrees(*train(strategy, order), *expected)
    piece = costs.size_bytes(strategy._worker_shapes()[0])
    assert strategy.exchange == "replicated"
    if drawing == {"replicas": 2}:  # twice the neurons: six of ten, four of seven
        assert piece == 4 * (5 * 6 + 6 * 4 + 4 * 3 + 3)
        received = 3 * 3 * (3 * piece + 4) // 4  # three of four pieces, and Adam's moments
        assert strategy.bytes_received(1, STEPS) == received


def test_with_every_neuron_on_every_worker_it_is_local_sgd():
    order = orders(3)[:2]
    options = {"workers": 3, "local_steps": STEPS}
    ist, _ = train(IST(mlp(9, 7), optax.adam(0.01), **options, replicas=3), order)
    whole, _ = train(LocalSGD(mlp(9, 7), optax.adam(0.01), **options), order)
    for a, b in zip(jax.tree.leaves(ist), jax.tree.leaves(whole), strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_neurons_of_the_absent_keep_their_values_whatever_the_type_on_the_wire():
    strategy = IST(
        mlp(16, 8),
        optax.adam(0.01),
        workers=4,
        local_steps=STEPS,
        partition="stratified",
        exchange="sharded",
        exchange_dtype=jnp.bfloat16,
        participation=0.5,
        mesh=workers_mesh(4, 4),
    )
    before = arrays_of(strategy.init(rounds.SEED).params)
    after = arrays_of(train(strategy, orders(4)[:1])[0].params)
    key = jax.random.fold_in(jax.random.key(rounds.SEED), 0)
    rows = np.asarray(partition(key, {"hidden1": 16}, 4, "stratified")["hidden1"])
    there = present_in(0, 4, 0.5)
    away = np.concatenate([rows[w] for w in range(4) if w not in there])
    np.testing.assert_array_equal(after[0][:, away], before[0][:, away])
    present = np.concatenate([rows[w] for w in there])
    assert (after[0][:, present] != before[0][:, present]).mean() > 0.9


def test_every_round_draws_as_many_workers_and_all_alike():
    draw = jax.vmap(lambda t: participation_weights(jax.random.key(0), t, 8, 3))
    weights = np.asarray(draw(jnp.arange(2000)))
    assert ((weights > 0).sum(axis=1) == 3).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    share = (weights > 0).mean(axis=0)
    assert np.abs(share - 3 / 8).max() < 5 * np.sqrt(15 / 64 / 2000)


def test_bytes_of_rounds_with_absent_workers_are_those_that_have_to_travel():
    """Counted worker by worker: a piece reaches all others, if it was trained."""
    model, size = mlp(16, 8), costs.size_bytes(nnx.state(mlp(16, 8), nnx.Param))
    options = {"workers": 8, "local_steps": STEPS, "participation": 0.25}
    piece = 4 * (5 * 2 + 2 * 1 + 1 * 3 + 3)
    ist = IST(model, optax.sgd(0.1), **options)
    received = [sum(piece for sender in (1, 6) if sender != worker) for worker in range(8)]
    assert ist.bytes_received(3, 9) == 3 * sum(received) // 8
    # Two workers add up halves of the sum, which all eight have in the end.
    whole = [size / 2 + size / 2 if worker in (1, 6) else size for worker in range(8)]
    for kind in (LocalSGD, DiLoCo):
        assert kind(model, optax.sgd(0.1), **options).bytes_received(2, 6) == 2 * sum(whole) // 8
    # DiLoCo's optimisers stay with their workers; those of local SGD are averaged.
    adam = DiLoCo(model, optax.adam(0.1), workers=8, local_steps=1)
    assert adam.bytes_received(1, 1) == -(-2 * 7 * size // 8)
    named, shared = 4 * (5 * 8 + 8 * 8 + 8 * 3), 4 * 3  # eight slots a layer, most of them empty
    wanted = 2 * 7 * named * 2 // 8**2 + (8 + 2 - 2) * shared // 8
    sharded = {"partition": "stratified", "exchange": "sharded", "mesh": workers_mesh(8, 8)}
    received = IST(model, optax.sgd(0.1), **options, **sharded).bytes_received(1, 3)
    assert received == pytest.approx(wanted, abs=3)


def collectives_of(strategy):
    order = jax.device_put(
        np.zeros((strategy.workers, STEPS, B), np.int32),
        jax.NamedSharding(strategy.mesh, jax.P("workers")),
    )
    examples = jax.device_put({"x": jnp.asarray(X), "y": jnp.asarray(Y)}, strategy.replicated)
    lowered = strategy._round.lower(strategy.init(0), strategy._rest, examples, order)
    return lowered.compile().as_text()


def test_the_program_of_diloco_averages_parameters_and_nothing_else():
    text = collectives_of(
        DiLoCo(mlp(9, 7), optax.adam(0.01), workers=8, local_steps=STEPS, mesh=workers_mesh(8, 8))
    )
    numbers = 0
    for line in text.splitlines():
        if " all-reduce(" in line:
            shapes = line.split(" all-reduce(")[0].split(" = ")[1]
            for shape in shapes.replace("(", "").split("f32[")[1:]:
                sizes = shape.split("]")[0]
                numbers += int(np.prod([int(n) for n in sizes.split(",")])) if sizes else 1
    assert numbers == 5 * 9 + 9 * 7 + 7 * 3 + 3


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (IST, {"participation": 0.0}, r"participation must lie in \(0, 1\], got 0.0"),
        (LocalSGD, {"participation": 1.5}, r"participation must lie in \(0, 1\], got 1.5"),
        (DiLoCo, {"participation": -1.0}, r"participation must lie in \(0, 1\], got -1.0"),
        (IST, {"replicas": 3}, "replicas must be between 1 and the 2 workers, got 3"),
        (IST, {"replicas": 2, "shares": (0.5, 0.5)}, "shares go with replicas=1, got 2"),
        (
            IST,
            {"replicas": 2, "partition": "stratified", "exchange": "sharded"},
            "exchange='sharded' needs replicas=1, got 2",
        ),
        (Ensemble, {"partition": "rolling"}, "those of an ensemble never do"),
    ],
)
def test_wrong_arguments_of_a_round_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(mlp(8, 6), optax.sgd(0.1), workers=2, local_steps=3, **arguments)


def test_wrong_outer_optimisers_are_named():
    with pytest.raises(ValueError, match="outer_lr must be positive, got 0.0"):
        nesterov(0.0)
    with pytest.raises(ValueError, match=r"outer_momentum must lie in \[0, 1\), got 1.0"):
        nesterov(0.7, 1.0)
