"""Rounding at random beside NumPy, and training with an output layer in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jist.models import SparseMLP
from jist.ragged import Ragged
from jist.strategies import IST, stochastically_rounded
from jist.strategies.rounding import stochastic_round
from jist.tasks import multilabel

X = np.array([1.001, -1.001, 3.14159, 1e-20, -7e5, 0.5, 0.0], np.float32)


def neighbours(x):
    """The bfloat16s around float32s, that of the smaller magnitude first, as float64."""
    below = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    above = ((x.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    return below.astype(float), above.astype(float)


def test_a_number_goes_to_its_neighbours_as_often_as_it_is_near_them():
    draws = 20_000
    bits = jax.random.bits(jax.random.key(0), (draws, len(X)), jnp.uint32)
    found = np.asarray(stochastic_round(jnp.broadcast_to(X, bits.shape), bits), float)
    below, above = neighbours(X)
    assert ((found == below) | (found == above)).all()
    share = (X - below) / (above - below)
    error = 4 * np.sqrt(share * (1 - share) / draws) + 1e-9
    assert (np.abs((found == above).mean(0) - share) < error).all()
    infinite = jnp.array([np.inf, -np.inf, np.nan], jnp.float32)
    kept = stochastic_round(infinite, bits[0, :3]).astype(jnp.float32)
    np.testing.assert_array_equal(kept, infinite)


def test_steps_too_small_for_the_type_are_taken_in_the_mean():
    params = {"half": jnp.ones(400, jnp.bfloat16), "whole": jnp.ones(3)}
    step = jax.tree.map(lambda p: jnp.full(p.shape, 1e-3, p.dtype), params)
    optimizer = stochastically_rounded(optax.sgd(1.0, momentum=0.5))

    @jax.jit
    def run(params):
        def one(carry, _):
            updates, state = optimizer.update(step, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(one, (params, optimizer.init(params)), None, 100)[0]

    (found, state), moved, m = run(params), 0.0, 0.0
    for _ in range(100):
        m = 0.5 * m + float(jnp.bfloat16(1e-3))
        moved += m
    assert found["half"].dtype == jnp.bfloat16
    assert state.inner[0].trace["half"].dtype == jnp.float32
    np.testing.assert_allclose(found["half"].astype(jnp.float32).mean(), 1 - moved, atol=2e-3)
    np.testing.assert_allclose(found["whole"], 1 - moved, atol=1e-3)


def test_workers_train_an_output_layer_in_bfloat16():
    entries = {"indices": np.arange(16, dtype=np.int32), "values": np.ones(16, np.float32)}
    rows = Ragged.of(np.full(8, 2), entries)
    labels = Ragged.of(np.full(8, 1), np.arange(8, dtype=np.int32), fill=-1)
    model = SparseMLP((16, 6, 8), norm="scale", output_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert model.last.kernel[...].dtype == jnp.bfloat16
    optimizer = stochastically_rounded(optax.adam(0.05))
    loss = multilabel().loss
    strategy = IST(model, optimizer, workers=2, local_steps=30, loss=loss)
    state, losses = strategy.init(0), []
    order = np.tile(np.arange(8, dtype=np.int32), (2, 30, 1))
    for _ in range(3):
        state, metrics = strategy.round(state, {"x": rows, "y": labels}, order)
        losses.append(float(metrics["loss"].mean()))
    assert state.params["layers"][1]["kernel"].dtype == jnp.bfloat16
    assert losses[2] < losses[1] < losses[0]
