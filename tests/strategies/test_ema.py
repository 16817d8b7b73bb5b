"""Moving averages of the parameters, against NumPy on the parameters of every round."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rounds
from flax import nnx

from jist.models import MLP
from jist.strategies import (
    IST,
    Centralized,
    DataParallel,
    Ensemble,
    LocalSGD,
    stochastically_rounded,
    workers_mesh,
)

GENERATOR = np.random.default_rng(0)
N, D, H, C, B, J, ROUNDS = 40, 4, 8, 3, 8, 2, 6
EXAMPLES = {
    "x": jnp.asarray(GENERATOR.normal(size=(N, D)), jnp.float32),
    "y": jnp.asarray(GENERATOR.integers(0, C, N), jnp.int32),
}
DECAY = 0.7  # the mean of all rounds up to the third, an exponential one from the fourth on


def parameters(strategy, state):
    return nnx.to_pure_dict(nnx.state(strategy.model(state), nnx.Param))


def build(kind, workers=2, devices=1, dtype=jnp.float32, **options):
    model = MLP((D, H, C), rngs=nnx.Rngs(0))
    params = jax.tree.map(lambda x: x.astype(dtype), nnx.state(model, nnx.Param))
    nnx.update(model, params)
    optimizer = optax.sgd(0.1)
    if dtype == jnp.bfloat16:
        optimizer = stochastically_rounded(optimizer, 0)
    mesh = workers_mesh(workers, devices)
    return kind(model, optimizer, workers=workers, local_steps=J, mesh=mesh, **options)


def networks(strategy, workers):
    """The network after every round, and the state after the last."""
    order = np.random.default_rng(1).integers(0, N, (ROUNDS, workers, J, B)).astype(np.int32)
    state, found = strategy.init(rounds.SEED), []
    for rows in order:
        state, _ = strategy.round(state, EXAMPLES, rows)
        found.append(jax.tree.map(np.asarray, parameters(strategy, state)))
    return found, state


@pytest.mark.parametrize(
    ("kind", "workers", "devices", "options"),
    [
        (Centralized, 1, 1, {}),
        (DataParallel, 2, 2, {}),
        (Ensemble, 2, 2, {}),
        (IST, 4, 4, {"partition": "stratified", "exchange": "sharded"}),
    ],
)
def test_the_network_is_the_average_of_what_it_would_have_been(kind, workers, devices, options):
    plain, end = networks(build(kind, workers, devices, **options), workers)
    found, state = networks(build(kind, workers, devices, ema_decay=DECAY, **options), workers)
    wanted = jax.tree.map(np.zeros_like, plain[0])
    for t, (params, average) in enumerate(zip(plain, found, strict=True), 1):
        share = max(1 - DECAY, 1 / t)
        wanted = jax.tree.map(lambda w, p, s=share: (1 - s) * w + s * p, wanted, params)
        jax.tree.map(lambda a, w: np.testing.assert_allclose(a, w, atol=1e-6), average, wanted)
    # What is trained does not see it.
    jax.tree.map(np.testing.assert_array_equal, state.params, end.params)


def test_an_average_of_narrow_weights_does_not_stand_still():
    """Steps of 3 % would be lost in 8 bits of mantissa."""
    strategy = build(LocalSGD, dtype=jnp.bfloat16, ema_decay=0.97)
    _, state = networks(strategy, 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.average)} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in jax.tree.leaves(parameters(strategy, state))} == {
        jnp.dtype(jnp.bfloat16)
    }


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_a_decay_must_be_a_share(decay):
    with pytest.raises(ValueError, match=rf"ema_decay must lie in \(0, 1\), got {decay}"):
        build(LocalSGD, ema_decay=decay)


def test_neurons_that_change_places_are_not_averaged():
    with pytest.raises(ValueError, match="partition='crossed' needs ema_decay=None, got 0.9"):
        build(IST, partition="crossed", ema_decay=0.9)
