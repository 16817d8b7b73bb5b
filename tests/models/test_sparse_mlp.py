"""Sparse rows beside the same rows written out, and the strategies that train on them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jist
from jist.evaluation import predict
from jist.models import MLP, SparseMLP, sparse_rows
from jist.models.sparse_rows import sparse_product
from jist.ragged import Ragged, count, take
from jist.strategies import IST, DataParallel, LocalSGD

FEATURES, EXAMPLES = 11, 24
GENERATOR = np.random.default_rng(0)
LENGTHS = GENERATOR.integers(0, 6, EXAMPLES)
ROWS = Ragged.of(
    LENGTHS,
    {
        "indices": np.concatenate(
            [GENERATOR.permutation(FEATURES)[:length] for length in LENGTHS]
        ).astype(np.int32),
        "values": GENERATOR.normal(size=LENGTHS.sum()).astype(np.float32),
    },
)
DENSE = np.zeros((EXAMPLES, FEATURES), np.float32)
DENSE[np.repeat(np.arange(EXAMPLES), LENGTHS), ROWS.entries["indices"]] = ROWS.entries["values"]


@pytest.mark.parametrize("block", [7, 512])
def test_the_product_and_its_gradient_are_those_of_the_dense_rows(monkeypatch, block):
    monkeypatch.setattr(sparse_rows, "BLOCK", block)
    matrix = GENERATOR.normal(size=(FEATURES, 3)).astype(np.float32)
    dy = GENERATOR.normal(size=(EXAMPLES, 3)).astype(np.float32)
    x = jax.tree.map(jnp.asarray, ROWS[:])
    y, back = jax.vjp(lambda w: sparse_product(x["indices"], x["values"], w), jnp.asarray(matrix))
    np.testing.assert_allclose(y, DENSE @ matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(back(jnp.asarray(dy))[0], DENSE.T @ dy, rtol=1e-5, atol=1e-5)


def test_workers_at_once_have_products_of_their_own():
    matrices = GENERATOR.normal(size=(2, FEATURES, 3)).astype(np.float32)
    rows = [ROWS[np.arange(4)], ROWS[np.arange(4, 8)]]
    x = jax.tree.map(lambda *arrays: np.stack(arrays), *rows)
    y = jax.vmap(sparse_product)(x["indices"], x["values"], matrices)
    expected = DENSE[:8].reshape(2, 4, FEATURES) @ matrices
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_rows_taken_on_the_host_and_in_a_program_are_alike():
    which = np.array([3, 0, 3, EXAMPLES - 1])
    tree = {"x": ROWS, "y": np.arange(EXAMPLES)}
    here, there = take(tree, which), jax.jit(take)(tree, which)
    jax.tree.map(np.testing.assert_array_equal, here, there)
    assert isinstance(here["x"]["values"], np.ndarray)
    assert count(tree) == count(jax.eval_shape(lambda: tree)) == EXAMPLES
    some = ROWS.rows(which)
    jax.tree.map(np.testing.assert_array_equal, some[:], ROWS[which])
    with pytest.raises(ValueError, match=r"got \[24\] at \['x'\], \[23\] at \['y'\]"):
        count({"x": ROWS, "y": np.arange(EXAMPLES - 1)})
    with pytest.raises(ValueError, match=r"entries must be fewer than 2\^31, got 4294967296"):
        Ragged.of(np.full(2, 2**31), ())


@pytest.mark.parametrize("norm", ["standardize", None])
def test_the_sparse_network_is_the_dense_one(norm):
    dense = MLP((FEATURES, 6, 5, 3), norm=norm, rngs=nnx.Rngs(0))
    sparse = SparseMLP((FEATURES, 6, 5, 3), norm=norm, rngs=nnx.Rngs(0))
    for model, x in ((dense, DENSE), (sparse, ROWS[:])):
        jist.calibrate(model, x)
    np.testing.assert_allclose(
        predict(sparse, ROWS, 7), predict(dense, DENSE, 7), rtol=1e-4, atol=1e-5
    )


def test_rows_are_scaled_to_a_length_and_empty_ones_stay_empty():
    sparse = SparseMLP((FEATURES, 5, 3), norm=None, row_length=2.0, rngs=nnx.Rngs(0))
    rows = ROWS[:]
    rows = rows | {"values": np.where(np.arange(EXAMPLES)[:, None] == 4, 0, rows["values"])}
    x = DENSE * (np.arange(EXAMPLES)[:, None] != 4)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    scaled = 2 * x / np.where(lengths > 0, lengths, 1)
    z = scaled @ np.asarray(sparse.layers[0].kernel[...])
    found = sparse.hidden(jax.tree.map(jnp.asarray, rows))
    np.testing.assert_allclose(found, np.maximum(z, 0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="row_length must be above 0 and finite, got 0.0"):
        SparseMLP((FEATURES, 5, 3), row_length=0.0, rngs=nnx.Rngs(0))


def test_a_network_without_a_hidden_layer_or_with_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match="widths must hold at least one hidden layer"):
        SparseMLP((FEATURES, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"entry_dropout must lie in \[0, 1\), got -0.1"):
        SparseMLP((FEATURES, 6, 3), entry_dropout=-0.1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1.0"):
        MLP((FEATURES, 6, 3), dropout=1.0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DataParallel, {}),
        (LocalSGD, {}),
        (IST, {}),
        (IST, {"partition": "stratified", "exchange": "sharded"}),
    ],
)
def test_every_strategy_trains_on_sparse_rows_as_on_dense_ones(kind, options):
    order = np.random.default_rng(1).integers(0, EXAMPLES, (2, 3, 8)).astype(np.int32)
    norm = "scale" if kind is IST else None
    labels = np.arange(EXAMPLES, dtype=np.int32) % 3

    def trained(model, x):
        strategy = kind(model, optax.adam(0.01), workers=2, local_steps=3, **options)
        state, metrics = strategy.round(strategy.init(0), {"x": x, "y": labels}, order)
        return state.params, metrics

    sparse = trained(SparseMLP((FEATURES, 8, 3), norm=norm, rngs=nnx.Rngs(0)), ROWS)
    dense = trained(MLP((FEATURES, 8, 3), norm=norm, rngs=nnx.Rngs(0)), DENSE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), sparse, dense)


def test_dropout_drops_in_training_alone():
    x = jnp.asarray(DENSE)
    model = MLP((FEATURES, 400, 3), norm=None, dropout=0.5, rngs=nnx.Rngs(0))
    kept = model.hidden(x) > 0
    model.eval()
    active = model.hidden(x) > 0
    assert not (kept & ~active).any()
    assert 0.45 < kept.sum() / active.sum() < 0.55
    # With a neuron for each feature, what is dropped of the entries is seen behind the first layer.
    model = SparseMLP((FEATURES, FEATURES, 3), norm=None, entry_dropout=0.5, rngs=nnx.Rngs(0))
    model.layers[0].kernel[...] = jnp.eye(FEATURES)
    rows, found = jax.tree.map(jnp.asarray, ROWS[:]), np.maximum(DENSE, 0)
    seen = np.asarray(model.hidden(rows))
    assert 0 < (seen > 0).sum() < (found > 0).sum()
    np.testing.assert_allclose(seen, np.where(seen > 0, 2 * found, 0), rtol=1e-6)
    model.eval()
    np.testing.assert_allclose(model.hidden(rows), found, rtol=1e-6)
