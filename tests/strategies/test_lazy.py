"""Lazy rows beside NumPy: a network of two layers whose steps touch only what a batch has."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.models import MLP, SparseMLP
from jist.ragged import Ragged
from jist.strategies import IST, Centralized, DataParallel, LazyRows

FEATURES, WIDTH, CLASSES, N, RATE = 12, 5, 3, 10, 0.1
DRAW = np.random.default_rng(0)
LENGTHS = DRAW.integers(0, 4, N)
INDICES = np.concatenate([DRAW.permutation(FEATURES)[:n] for n in LENGTHS]).astype(np.int32)
VALUES = DRAW.normal(size=len(INDICES)).astype(np.float32)
ROWS = Ragged.of(LENGTHS, {"indices": INDICES, "values": VALUES})
X = np.zeros((N, FEATURES))
X[np.repeat(np.arange(N), LENGTHS), INDICES] = VALUES
Y = np.arange(N, dtype=np.int32) % CLASSES
EXAMPLES = {"x": ROWS, "y": Y}
ORDER = DRAW.integers(0, N, (1, 4, 3)).astype(np.int32)


def trained(optimizer, order=ORDER, kind=Centralized, **options):
    model = SparseMLP((FEATURES, WIDTH, CLASSES), norm=None, rngs=nnx.Rngs(0))
    strategy = kind(model, optimizer, workers=len(order), local_steps=4, **options)
    state, _ = strategy.round(strategy.init(0), EXAMPLES, order)
    return state.params["layers"]


def gradients(params, rows):
    """Of softmax cross-entropy, in NumPy: first kernel, its bias, second kernel, its bias."""
    first, bias, second, out = params
    hidden = np.maximum(X[rows] @ first + bias, 0)
    logits = hidden @ second + out
    p = np.exp(logits - logits.max(1, keepdims=True))
    slope = (p / p.sum(1, keepdims=True) - np.eye(CLASSES)[Y[rows]]) / len(rows)
    back = (slope @ second.T) * (hidden > 0)
    return X[rows].T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_are_those_of_numpy(name):
    start = MLP((FEATURES, WIDTH, CLASSES), norm=None, rngs=nnx.Rngs(0)).layers
    params = [np.array(of[...], float) for la in start for of in (la.kernel, la.bias)]
    moments = [[np.zeros_like(of), np.zeros_like(of)] for of in params]
    for count, rows in enumerate(ORDER[0], start=1):
        used = (X[rows] != 0).any(0)
        for place, gradient in enumerate(gradients(params, rows)):
            there = used if place == 0 else slice(None)
            if name == "sgd":
                params[place] -= RATE * gradient  # dense: of other rows the gradient is 0
                continue
            m, v = moments[place]
            m[there] = 0.9 * m[there] + 0.1 * gradient[there]
            v[there] = 0.999 * v[there] + 0.001 * gradient[there] ** 2
            corrected = m[there] / (1 - 0.9**count), v[there] / (1 - 0.999**count)
            params[place][there] -= RATE * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    found = trained(LazyRows(getattr(optax, name)(RATE)))
    flat = [found[i][of] for i in (0, 1) for of in ("kernel", "bias")]
    for own, wanted in zip(flat, params, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-3, atol=1e-5)
    never = ~(X[ORDER[0]] != 0).any((0, 1))
    assert never.any()
    np.testing.assert_array_equal(found[0]["kernel"][never], start[0].kernel[...][never])


def test_subnetworks_of_unequal_width_take_lazy_rows():
    order = DRAW.integers(0, N, (2, 4, 3)).astype(np.int32)
    lazy, dense = (trained(of, order, IST) for of in (LazyRows(optax.sgd(RATE)), optax.sgd(RATE)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), lazy, dense)


def test_what_has_no_lazy_rows_is_refused():
    with pytest.raises(
        ValueError, match="DataParallel sends whole gradients, which LazyRows never has"
    ):
        trained(LazyRows(optax.sgd(RATE)), kind=DataParallel)
    lazy = LazyRows(optax.sgd(RATE))
    with pytest.raises(ValueError, match="lazy rows need sparse examples"):
        lazy.rows({"x": X, "y": Y}, {})
    with pytest.raises(ValueError, match="params must hold a kernel at"):
        lazy.take({"w": X}, {"w": X}, jnp.arange(2))
