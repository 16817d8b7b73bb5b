"""Subnetworks that reconstruct what they lack, beside the same in NumPy, number by number."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.ist import Assignment
from jist.models import Reconstruct
from jist.strategies import IST, Ensemble

WIDTH, OF_EACH, WORKERS, STEPS, BATCH, RATE = 3, 2, 2, 2, 6, 0.5
INPUTS, CLASSES = 4, 3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, INPUTS)).astype(np.float32)
Y = RNG.integers(0, CLASSES, 20).astype(np.int32)
ORDER = RNG.permuted(np.tile(np.arange(20), (WORKERS, 1)), axis=1)[:, : STEPS * BATCH]
ORDER = ORDER.reshape(WORKERS, STEPS, BATCH).astype(np.int32)


class Network(nnx.Module):
    """Two layers of three neurons, of two numbers each; of two workers one has a neuron more."""

    def __init__(self, correction=Reconstruct):
        numbers = WIDTH * OF_EACH
        one, other = (("first", OF_EACH), ("second", OF_EACH))
        self.into = nnx.Linear(INPUTS, numbers, use_bias=False, rngs=nnx.Rngs(0))
        self.middle = nnx.Linear(numbers, numbers, rngs=nnx.Rngs(1))
        self.again = nnx.Linear(numbers, numbers, use_bias=False, rngs=nnx.Rngs(2))
        self.out = nnx.Linear(numbers, CLASSES, rngs=nnx.Rngs(3))
        self.into.kernel.set_metadata(neurons=(None, one))
        self.middle.kernel.set_metadata(neurons=(one, None))
        self.again.kernel.set_metadata(neurons=(None, other))
        self.out.kernel.set_metadata(neurons=(other, None))
        self.corrections = nnx.List([correction(), correction()])

    def __call__(self, x):
        x = self.corrections[0](self.middle, jnp.tanh(self.into(x)))
        return self.corrections[1](self.out, jnp.tanh(self.again(x)))


def plain():
    """Applies a map, corrects nothing."""
    return lambda reader, x: reader(x)


def forward(p, x):
    """What the two layers of neurons give, and the maps that read them."""
    first = np.tanh(x @ p["into"])
    middle = first @ p["middle"] + p["middle_bias"]
    second = np.tanh(middle @ p["again"])
    return first, middle, second, second @ p["out"] + p["out_bias"]


def fitted(kernel, bias, x, wanted):
    """The map that is nearest to what is wanted, solved for."""
    covariance = np.cov(x.T, bias=True)
    inner = covariance + np.eye(len(covariance)) * np.trace(covariance) / len(x)
    missing = wanted - x @ kernel - bias
    change = np.linalg.solve(inner, (x - x.mean(0)).T @ missing / len(x))
    return kernel + change, bias + missing.mean(0) - x.mean(0) @ change


def steps_of(p, rows):
    """A worker's parameters after its steps of gradient descent, and its mean loss."""
    losses = []
    for batch in rows:
        x = X[batch]
        first, middle, second, logits = forward(p, x)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        losses.append(-np.log(odds[np.arange(BATCH), Y[batch]]).mean())
        delta = (odds - np.eye(CLASSES)[Y[batch]]) / BATCH
        back = (delta @ p["out"].T) * (1 - second**2)
        between = back @ p["again"].T
        front = (between @ p["middle"].T) * (1 - first**2)
        gradients = {
            "into": x.T @ front,
            "middle": first.T @ between,
            "middle_bias": between.sum(0),
            "again": middle.T @ back,
            "out": second.T @ delta,
            "out_bias": delta.sum(0),
        }
        p = {name: p[name] - RATE * gradients[name] for name in p}
    return p, np.mean(losses)


def expected_round(full, parts):
    """Parameters after a round, and the losses."""
    new, biases, losses = dict(full), [], []
    for worker, rows in enumerate(ORDER):
        first, second = (
            [OF_EACH * n + i for n in parts[layer][worker] if n < WIDTH for i in range(OF_EACH)]
            for layer in ("first", "second")
        )
        where = {
            "into": np.s_[:, first],
            "middle": np.s_[first],
            "again": np.s_[:, second],
            "out": np.s_[second],
        }
        own = {name: full[name][where.get(name, ...)] for name in full}
        x = X[rows.ravel()]
        _, middle, _, logits = forward(full, x)
        p = dict(own)
        given = forward(p, x)[0]
        p["middle"], p["middle_bias"] = fitted(p["middle"], p["middle_bias"], given, middle)
        given = forward(p, x)[2]
        p["out"], p["out_bias"] = fitted(p["out"], p["out_bias"], given, logits)
        trained, loss = steps_of(p, rows)
        for name, at in where.items():
            new[name] = new[name].copy()
            new[name][at] = trained[name] - (p[name] - own[name])
        biases.append({name: trained[name] - (p[name] - own[name]) for name in full})
        losses.append(loss)
    for name in ("middle_bias", "out_bias"):
        new[name] = np.mean([of[name] for of in biases], axis=0)
    return new, losses


def named(params):
    """Parameters by the names that they have here."""
    kernels = {name: params[name]["kernel"] for name in ("into", "middle", "again", "out")}
    biases = {f"{name}_bias": params[name]["bias"] for name in ("middle", "out")}
    return {name: np.asarray(of, np.float64) for name, of in (kernels | biases).items()}


def test_a_round_trains_what_the_same_in_numpy_does():
    model = Network()
    strategy = IST(model, optax.sgd(RATE), workers=WORKERS, local_steps=STEPS)
    state = strategy.init(0)
    parts = Assignment(model, WORKERS, "uniform").parts(jax.random.fold_in(state.key, 0))
    before = named(state.params)
    state, metrics = strategy.round(state, {"x": X, "y": Y}, ORDER)
    expected, losses = expected_round(before, jax.tree.map(np.asarray, parts))
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-4)
    for name, array in named(state.params).items():
        np.testing.assert_allclose(array, expected[name], atol=2e-5, err_msg=name)


def test_what_it_costs_is_counted():
    """The full network's forward pass and the subnetwork's, at least, over both steps."""
    counted = [
        IST(Network(kind), optax.sgd(1.0), workers=WORKERS, local_steps=STEPS).flops_per_step(
            {"x": X, "y": Y}, BATCH
        )
        for kind in (plain, Reconstruct)
    ]
    numbers = WIDTH * OF_EACH
    assert counted[1] - counted[0] > 2 * BATCH * numbers * (INPUTS + 2 * numbers + CLASSES)


def test_what_cannot_be_reconstructed_is_refused():
    how = {"workers": 2, "local_steps": 1}
    with pytest.raises(ValueError, match="needs a model that reconstructs nothing"):
        IST(Network(), optax.sgd(1.0), partition="stratified", exchange="sharded", **how)
    with pytest.raises(ValueError, match="must not correct its subnets"):
        Ensemble(Network(), optax.sgd(1.0), **how)
