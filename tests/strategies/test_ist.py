import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
import rounds
from flax import nnx

from jist.ist import partition
from jist.models import MLP
from jist.strategies import IST, Centralized, workers_mesh

GENERATOR = np.random.default_rng(0)
N, D, C, B = 60, 5, 3, 12
X = GENERATOR.normal(size=(N, D)).astype(np.float32)
Y = GENERATOR.integers(0, C, N).astype(np.int32)
EXAMPLES = {"x": jnp.asarray(X), "y": jnp.asarray(Y)}


def random_order(rounds, workers, steps):
    shape = (rounds, workers, steps, B)
    return np.random.default_rng(1).integers(0, N, shape).astype(np.int32)


def mlp(*hidden, norm="standardize"):
    return MLP((D, *hidden, C), norm=norm, rngs=nnx.Rngs(3))


def train(strategy, order):
    return rounds.train(strategy, EXAMPLES, order)


def arrays_of(params):
    layers = [params["layers"][i] for i in sorted(params["layers"])]
    kernels = [np.float64(layer["kernel"]) for layer in layers]
    return kernels, [np.float64(layer["bias"]) if "bias" in layer else None for layer in layers]


def run_oracle(model, optimizer, order, norm, carry):
    kernels, biases = arrays_of(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    widths = {f"hidden{i + 1}": k.shape[1] for i, k in enumerate(kernels[:-1])}
    states = [() if a is None else optimizer.start(a) for a in [*kernels, *biases]]
    losses = []
    for t, rows in enumerate(order):
        drawn = partition(jax.random.fold_in(jax.random.key(7), t), widths, len(rows))
        parts = [[r[r < w] for r in np.asarray(drawn[name])] for name, w in widths.items()]
        kernels, biases, states, loss = oracle.ist_round(
            kernels, biases, states, t * rows.shape[1], optimizer, parts, X, Y, rows, norm, carry
        )
        losses.append(loss)
    return kernels, biases, np.asarray(losses)


def assert_agrees(state, losses, expected, tolerance):
    kernels, biases = arrays_of(state.params)
    np.testing.assert_allclose(losses, expected[2], rtol=tolerance, atol=tolerance)
    for array, wanted in zip([*kernels, *biases], [*expected[0], *expected[1]], strict=True):
        if wanted is not None:
            np.testing.assert_allclose(array, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", ["standardize", None])
@pytest.mark.parametrize(("hidden", "workers"), [((7,), 3), ((9, 7), 4)])
def test_two_rounds_of_sgd_agree_with_numpy(norm, hidden, workers):
    order = random_order(2, workers, 3)
    strategy = IST(mlp(*hidden, norm=norm), optax.sgd(0.05), workers=workers, local_steps=3)
    expected = run_oracle(mlp(*hidden, norm=norm), oracle.SGD(0.05), order, norm, carry=True)
    assert_agrees(*train(strategy, order), expected, 1e-5)


@pytest.mark.parametrize("optimizer_state", ["carry", "reset"])
def test_two_rounds_of_adam_agree_with_numpy(optimizer_state):
    order = random_order(2, 3, 3)
    strategy = IST(
        mlp(8, 7), optax.adam(0.01), workers=3, local_steps=3, optimizer_state=optimizer_state
    )
    carry = optimizer_state == "carry"
    expected = run_oracle(mlp(8, 7), oracle.Adam(0.01), order, "standardize", carry)
    # Adam divides by the gradient's own size, which magnifies float32 rounding.
    assert_agrees(*train(strategy, order), expected, 1e-4)


def test_one_worker_is_centralised_training():
    order = random_order(3, 1, 4)
    options = {"workers": 1, "local_steps": 4}
    one, _ = train(IST(mlp(8, 6), optax.adam(1e-2), **options), order)
    whole, _ = train(Centralized(mlp(8, 6), optax.adam(1e-2), **options), order)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("optimizer_state", ["carry", "reset"])
def test_the_number_of_devices_does_not_matter(optimizer_state):
    order = random_order(3, 8, 2)
    results = []
    for devices in (1, 2, 4, 8):
        strategy = IST(
            mlp(17, 11),
            # Rounding depends on the number of devices, and with the usual eps of 1e-8 Adam makes
            # of a gradient's rounding near 0 a step of any length.
            optax.adam(1e-2, eps=1e-3),
            workers=8,
            local_steps=2,
            optimizer_state=optimizer_state,
            mesh=workers_mesh(8, devices),
        )
        results.append(train(strategy, order)[0])
    for other in results[1:]:
        for a, b in zip(
            jax.tree.leaves(results[0].params), jax.tree.leaves(other.params), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_weights_between_neurons_of_different_workers_are_untouched():
    strategy = IST(mlp(8, 6), optax.adam(1e-2), workers=2, local_steps=3)
    before = strategy.init(7)
    middle_before = np.asarray(before.params["layers"][1]["kernel"])
    after, _ = strategy.round(before, EXAMPLES, random_order(1, 2, 3)[0])
    middle = np.asarray(after.params["layers"][1]["kernel"])
    key = jax.random.fold_in(jax.random.key(7), 0)
    parts = partition(key, {"hidden1": 8, "hidden2": 6}, 2)
    same = np.zeros((8, 6), bool)
    for rows, columns in zip(parts["hidden1"], parts["hidden2"], strict=True):
        same[np.ix_(rows, columns)] = True
    np.testing.assert_array_equal(middle[~same], middle_before[~same])
    assert (middle[same] != middle_before[same]).mean() > 0.9


def test_with_one_hidden_layer_every_weight_is_trained():
    strategy = IST(mlp(7, norm=None), optax.sgd(0.05), workers=3, local_steps=3)
    state = strategy.init(7)
    before = [np.asarray(state.params["layers"][i]["kernel"]) for i in range(2)]
    state, _ = strategy.round(state, EXAMPLES, random_order(1, 3, 3)[0])
    for i in range(2):
        changed = before[i] != np.asarray(state.params["layers"][i]["kernel"])
        # A neuron whose ReLU is shut for a worker's whole round has no gradient.
        assert changed.mean() > 0.9


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    def once(seed):
        strategy = IST(mlp(8, 6), optax.adam(1e-2), workers=2, local_steps=3)
        state, _ = strategy.round(strategy.init(seed), EXAMPLES, random_order(1, 2, 3)[0])
        return jax.tree.leaves(state.params)

    first = once(1)
    for a, b in zip(first, once(1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, once(2), strict=True))


def test_padding_stays_inert_for_activations_that_do_not_vanish_at_zero():
    """A sigmoid of a padded neuron is 1/2; its outgoing weights must stay zero all the same."""

    class Sigmoid(nnx.Module):
        def __init__(self, rngs):
            def declared(init, *neurons):
                return nnx.with_metadata(init, neurons=neurons)

            lecun, zeros = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()
            self.first = nnx.Linear(
                D,
                5,
                kernel_init=declared(lecun, None, "h"),
                bias_init=declared(zeros, "h"),
                rngs=rngs,
            )
            self.last = nnx.Linear(5, C, kernel_init=declared(lecun, "h", None), rngs=rngs)

        def __call__(self, x):
            return self.last(jax.nn.sigmoid(self.first(x)))

    # Five neurons on two workers of three slots: one is padded. On five workers none is.
    order = random_order(1, 2, 4)
    strategy = IST(Sigmoid(nnx.Rngs(0)), optax.sgd(0.5), workers=2, local_steps=4)
    state, _ = train(strategy, order)
    reference = Sigmoid(nnx.Rngs(0))
    parts = partition(jax.random.fold_in(jax.random.key(7), 0), {"h": 5}, 2)["h"]
    biases = []
    first, last = (
        (np.float64(layer.kernel[...]), np.float64(layer.bias[...]))
        for layer in (reference.first, reference.last)
    )
    for worker, part in enumerate(np.asarray(parts)):
        own = part[part < 5]
        (w1, b1), (w2, b2) = (first[0][:, own], first[1][own]), (last[0][own], last[1])
        for rows in order[0, worker]:
            h = 1 / (1 + np.exp(-(X[rows] @ w1 + b1)))
            p = np.exp(h @ w2 + b2)
            delta = (p / p.sum(1, keepdims=True) - np.eye(C)[Y[rows]]) / B
            inner = delta @ w2.T * h * (1 - h)
            gradients = X[rows].T @ inner, inner.sum(0), h.T @ delta, delta.sum(0)
            w1, b1, w2, b2 = (a - 0.5 * g for a, g in zip((w1, b1, w2, b2), gradients, strict=True))
        np.testing.assert_allclose(state.params["last"]["kernel"][own], w2, atol=1e-5)
        biases.append(b2)
    np.testing.assert_allclose(state.params["last"]["bias"], np.mean(biases, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 7}, "workers must be between 1 and the 6 neurons of 'hidden2', got 7"),
        ({"workers": 0}, "workers must be between 1 and the 8 neurons of 'hidden1', got 0"),
        ({"local_steps": 0}, "local_steps must be at least 1, got 0"),
        ({"partition": "random"}, "partition must be one of"),
        ({"exchange": "pigeon"}, "exchange must be one of"),
        ({"optimizer_state": "lost"}, "optimizer_state must be one of"),
        ({"workers": 3, "mesh": workers_mesh(2, 2)}, "workers must be a multiple of the mesh's"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        IST(mlp(8, 6), optax.sgd(0.1), **{"workers": 2, "local_steps": 3, **arguments})


def test_more_devices_than_workers_are_refused():
    with pytest.raises(ValueError, match="workers must be a multiple of devices, got 2 workers"):
        workers_mesh(2, 4)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        workers_mesh(0)
    with pytest.raises(ValueError, match="devices must be between 1 and the 8 there are, got 9"):
        workers_mesh(9, 9)


def test_an_order_of_the_wrong_shape_is_refused():
    strategy = IST(mlp(8, 6), optax.sgd(0.1), workers=2, local_steps=3)
    with pytest.raises(ValueError, match=r"order must have the shape \[workers=2, steps, batch\]"):
        strategy.round(strategy.init(0), EXAMPLES, random_order(1, 3, 3)[0])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_round_is_compiled_once(workers, monkeypatch):
    chex.clear_trace_counter()
    once = chex.assert_max_traces(IST._device_round, n=1)
    monkeypatch.setattr(IST, "_device_round", lambda self, *arguments: once(self, *arguments))
    strategy = IST(mlp(8, 7), optax.adam(0.01), workers=workers, local_steps=3)
    state, _ = train(strategy, random_order(4, workers, 3))
    assert int(state.round) == 4
    with pytest.raises(AssertionError, match="traced"):
        train(strategy, random_order(1, workers, 2))  # another length is another program
