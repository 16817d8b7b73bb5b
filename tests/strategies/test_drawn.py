"""Networks that are given as shapes, and drawn where they lie."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.models import MLP, as_shapes
from jist.strategies import IST, Centralized, workers_mesh

WIDTHS = (4, 8, 3)


def shapes():
    return as_shapes(lambda: MLP(WIDTHS, rngs=nnx.Rngs(0)))


def draw(key):
    return nnx.to_pure_dict(nnx.state(MLP(WIDTHS, rngs=nnx.Rngs(key)), nnx.Param))


def sharded(**options):
    how = {"partition": "stratified", "exchange": "sharded", **options}
    mesh = workers_mesh(2, 2)
    return IST(shapes(), optax.adam(1e-3), workers=2, local_steps=2, mesh=mesh, **how)


def test_every_device_draws_its_share_of_the_same_network():
    one = Centralized(shapes(), optax.adam(1e-3), local_steps=2)
    whole, parts = (strategy.init(3, draw) for strategy in (one, sharded()))
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)
    kernel = parts.params["layers"][0]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(4, 4)}
    other = one.init(4, draw).params["layers"][0]["kernel"]
    assert not np.array_equal(other, kernel)
    examples = {"x": jnp.ones((6, 4)), "y": jnp.zeros(6, jnp.int32)}
    state, _ = sharded().round(parts, examples, np.zeros((2, 2, 3), np.int32))
    assert int(state.round) == 1


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="init needs draw for a model that was given as shapes"):
        sharded().init(0)
    with pytest.raises(ValueError, match="draw must make parameters like"):
        sharded().init(0, lambda key: {"layers": {}})
    with pytest.raises(ValueError, match="a partition that leaves neurons in place, got 'crossed'"):
        sharded(partition="crossed", exchange="direct").init(0, draw)
