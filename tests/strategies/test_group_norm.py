"""Groups of channels dealt whole, with their normalisation, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import SGD

from jist.ist import partition
from jist.models import GroupNorm
from jist.strategies import IST

GROUPS, SIZE, INPUTS, CLASSES, PLACES = 5, 2, 3, 4, 6
CHANNELS = GROUPS * SIZE
X = np.random.default_rng(0).standard_normal((24, PLACES, INPUTS)).astype(np.float32)
Y = np.arange(24, dtype=np.int32) % CLASSES


class Grouped(nnx.Module):
    """A 1 × 1 convolution of images as rows of places, its normalisation, and a classifier."""

    def __init__(self, rngs):
        axis = ("groups", SIZE)
        self.convolution = nnx.Linear(
            *(INPUTS, CHANNELS),
            use_bias=False,
            kernel_metadata={"neurons": (None, axis)},
            rngs=rngs,
        )
        self.norm = GroupNorm(CHANNELS, GROUPS, neurons="groups", rngs=rngs)
        self.out = nnx.Linear(
            CHANNELS, CLASSES, kernel_metadata={"neurons": (axis, None)}, rngs=rngs
        )

    def __call__(self, x):
        return self.out(jax.nn.relu(self.norm(self.convolution(x))).mean(axis=1))


def forward_backward(arrays, x, y):
    """Loss and gradients: of kernel, scale, shift, the classifier's kernel and bias."""
    kernel, scale, shift, last, bias = arrays
    z = (x @ kernel).reshape(*x.shape[:2], -1, SIZE)
    over = (1, 3)
    deviation = np.sqrt(z.var(over, keepdims=True) + 1e-5)
    hat = (z - z.mean(over, keepdims=True)) / deviation
    flat = hat.reshape(*x.shape[:2], -1)
    out = flat * scale + shift
    hidden = np.maximum(out, 0).mean(1)
    logits = hidden @ last + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    p /= len(y)
    delta = (p @ last.T)[:, None] / x.shape[1] * (out > 0)
    to_hat = (delta * scale).reshape(z.shape)
    centred = to_hat - to_hat.mean(over, keepdims=True)
    centred -= hat * (to_hat * hat).mean(over, keepdims=True)
    to_z = (centred / deviation).reshape(flat.shape)
    return loss, [
        np.einsum("bpi,bpo->io", x, to_z),
        (delta * flat).sum((0, 1)),
        delta.sum((0, 1)),
        hidden.T @ p,
        p.sum(0),
    ]


def arrays_of(params):
    """In the order of `forward_backward`."""
    norm, out = params["norm"], params["out"]
    found = (params["convolution"]["kernel"], norm["scale"], norm["bias"])
    return [np.asarray(array, np.float64) for array in (*found, out["kernel"], out["bias"])]


@pytest.mark.parametrize("workers", [2, 4])
def test_groups_are_trained_whole_as_numpy_says(workers):
    """Five groups divide by neither number of workers."""
    strategy = IST(Grouped(nnx.Rngs(0)), optax.sgd(0.5), workers=workers, local_steps=3)
    order = np.random.default_rng(1).integers(0, 24, (2, workers, 3, 8)).astype(np.int32)
    state = strategy.init(7)
    full, optimizer = arrays_of(state.params), SGD(0.5)
    for number, rows in enumerate(order):
        state, metrics = strategy.round(state, {"x": X, "y": Y}, rows)
        key = jax.random.fold_in(jax.random.key(7), number)
        parts = np.asarray(partition(key, {"groups": GROUPS}, workers)["groups"])
        new, biases, losses = [array.copy() for array in full], [], []
        for worker, part in enumerate(parts):
            channels = (part[part < GROUPS, None] * SIZE + np.arange(SIZE)).ravel()
            at = [np.s_[:, channels], channels, channels, channels, np.s_[:]]
            own = [array[index] for array, index in zip(full, at, strict=True)]
            total = 0.0
            for batch in rows[worker]:
                loss, gradients = forward_backward(own, X[batch].astype(np.float64), Y[batch])
                steps = zip(own, gradients, strict=True)
                own = [optimizer.step(array, gradient, (), 0)[0] for array, gradient in steps]
                total += loss / 3
            for array, index, piece in zip(new[:4], at, own, strict=False):
                array[index] = piece
            biases.append(own[4])
            losses.append(total)
        full = [*new[:4], np.mean(biases, axis=0)]
        np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-4)
    for ours, theirs in zip(arrays_of(state.params), full, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    most = -(-GROUPS // workers) * SIZE
    assert strategy.parameters_per_worker == most * (INPUTS + 2 + CLASSES) + CLASSES


def test_all_groups_together_are_flaxs():
    rngs = nnx.Rngs(0)
    ours, theirs = GroupNorm(6, 3, rngs=rngs), nnx.GroupNorm(6, 3, epsilon=1e-5, rngs=rngs)
    for norm in (ours, theirs):
        norm.scale[...] = jnp.linspace(0.5, 2, 6)
        norm.bias[...] = jnp.linspace(-1, 1, 6)
    x = 3 + jax.random.normal(jax.random.key(0), (4, 5, 5, 6))
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_groups_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="groups must divide channels=6, got 4"):
        GroupNorm(6, 4, rngs=nnx.Rngs(0))
