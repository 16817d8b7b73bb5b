"""Scores that some channels are fitted to, beside the best that there are, by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jist.ist import Assignment, cut
from jist.models.neurons import name_block
from jist.models.reconstruct import Fitted
from jist.models.transformer import Block

DIM, HEADS, WIDTH, IMAGES, TOKENS = 12, 2, 6, 40, 5


@pytest.fixture(scope="module")
def networks():
    """A block, a worker's half of its channels, and both after a fit."""
    block = Block(DIM, HEADS, 8, 1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    # Channels of a trained head are alike: some say much about the others.
    mix = jax.random.normal(jax.random.key(5), (WIDTH, WIDTH)) + 1
    kernel = block.attention.qkv.kernel[...].reshape(DIM, 3 * HEADS, WIDTH) @ mix
    block.attention.qkv.kernel[...] = kernel.reshape(DIM, -1)
    block.attention.qkv.bias[...] = jax.random.normal(jax.random.key(6), (3 * DIM,))
    name_block(block, "block0", ("channels",), correction="reconstruct")
    assignment = Assignment(block, 2, "uniform")
    parts = assignment.parts(jax.random.key(1))
    graphdef, params, rest = nnx.split(block, nnx.Param, ...)
    own = jax.tree.map(lambda leaf: leaf[0], cut(nnx.to_pure_dict(params), assignment.axes, parts))
    of_own = jax.tree.map(
        lambda leaf: leaf[0], cut(nnx.to_pure_dict(rest), assignment.rest_axes, parts)
    )
    before, fitted = (nnx.merge(graphdef, own, of_own) for _ in range(2))
    x = jax.random.normal(jax.random.key(2), (IMAGES, TOKENS, DIM))
    for network, phase in ((block, "record"), (fitted, "fit")):
        network.set_attributes(Fitted, phase=phase)
    block(x)
    for part, whole in ((fitted.attention.scores, block.attention.scores),):
        part.wanted = whole.wanted
    fitted.attention.correction.wanted = block.attention.correction.wanted
    fitted(x)
    return block, before, fitted, x


def scores_of(network, x, factor):
    """Of all tokens, in NumPy; keys around their mean, as their softmax does not see it."""
    qkv = network.attention.qkv
    h = np.asarray(network.norm1(x)).reshape(-1, DIM)
    parts = (h @ np.asarray(qkv.kernel[...]) + np.asarray(qkv.bias[...])).reshape(
        len(h), 3, HEADS, -1
    )
    query, key = parts[:, 0] * WIDTH**-0.5 * factor, parts[:, 1]
    return query, key - key.mean(0)


def test_the_projection_to_keys_is_the_one_with_the_nearest_scores(networks):
    block, before, fitted, x = networks
    whole, own, new = (scores_of(*of) for of in ((block, x, 1), (before, x, 2), (fitted, x, 2)))
    for head in range(HEADS):
        wanted, plain, found = (of[0][:, head] @ of[1][:, head].T for of in (whole, own, new))
        query, key = own[0][:, head], own[1][:, head]
        best = np.linalg.pinv(query) @ wanted @ np.linalg.pinv(key).T
        least, by_half, got = (
            np.linalg.norm(of - wanted) for of in (query @ best @ key.T, plain, found)
        )
        assert least < by_half / 2  # else there is nothing to reconstruct
        assert got < 1.02 * least
    np.testing.assert_array_equal(new[0], own[0])  # queries stay


def test_values_are_left_alone_and_a_full_network_is_what_it_was(networks):
    block, before, fitted, x = networks
    kernels = [np.asarray(of.attention.qkv.kernel[...]) for of in (before, fitted)]
    values = [of.reshape(DIM, 3, -1)[:, (0, 2)] for of in kernels]
    np.testing.assert_array_equal(*values)
    plain = Block(DIM, HEADS, 8, 1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    nnx.update(plain, nnx.state(block, nnx.Param))
    np.testing.assert_allclose(block(x), plain(x), atol=1e-5)
