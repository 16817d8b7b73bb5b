"""Independent subnet training is tied to no model: networks that only name some neurons."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.ist import Assignment, cut, neuron_axes, partition
from jist.models import MLP, Standardize
from jist.models.resnet import Bottleneck
from jist.strategies import IST, Ensemble

LECUN, ZEROS = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()


def dense(inputs, outputs, before, after, rngs):
    return nnx.Linear(
        inputs,
        outputs,
        kernel_init=nnx.with_metadata(LECUN, neurons=(before, after)),
        bias_init=nnx.with_metadata(ZEROS, neurons=(after,)),
        rngs=rngs,
    )


class ConvNet(nnx.Module):
    """Convolutions that every worker has, and a dense part that is partitioned."""

    def __init__(self, rngs):
        self.convolution = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.hidden = dense(64, 10, None, "hidden", rngs)
        self.output = dense(10, 3, "hidden", None, rngs)

    def __call__(self, x):
        x = nnx.max_pool(jax.nn.relu(self.convolution(x)), (2, 2), strides=(2, 2))
        return self.output(jax.nn.relu(self.hidden(x.reshape(len(x), -1))))


class TransformerBlock(nnx.Module):
    """Attention that every worker has; the neurons of the MLP are partitioned."""

    def __init__(self, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
        self.qkv = nnx.Linear(8, 24, rngs=rngs)
        self.mlp_in = dense(8, 12, None, "mlp", rngs)
        self.mlp_out = dense(12, 8, "mlp", None, rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(len(x), 8, 8)
        q, k, v = jnp.split(self.qkv(self.norm1(x))[:, :, None], 3, axis=-1)
        x = x + jax.nn.dot_product_attention(q, k, v)[:, :, 0]
        x = x + self.mlp_out(jax.nn.gelu(self.mlp_in(self.norm2(x))))
        return self.head(x.mean(axis=1))


class ResNet(nnx.Module):
    """ResNet-50's bottlenecks, few and narrow, that every worker has and trains, and the MLP of the
    papers as a head that is partitioned."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        block = functools.partial(Bottleneck, dtype=jnp.float32, rngs=rngs)
        self.blocks = nnx.List([block(4, 2, 2), block(8, 2, 1)])
        self.head = MLP((8, 12, 3), norm=None, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


EXAMPLES = {
    "x": jax.random.normal(jax.random.key(0), (40, 8, 8, 1)),
    "y": jnp.arange(40) % 3,
}


@pytest.mark.parametrize(
    ("model", "layer", "width"),
    [(ConvNet, "hidden", 10), (TransformerBlock, "mlp", 12), (ResNet, "hidden1", 12)],
)
def test_the_dense_part_is_dealt_and_the_rest_is_averaged(model, layer, width):
    """Each worker by itself, cut and trained with plain gradient descent by hand."""
    order = np.random.default_rng(0).integers(0, 40, (2, 3, 8)).astype(np.int32)
    strategy = IST(model(nnx.Rngs(0)), optax.sgd(0.1), workers=2, local_steps=3)
    state, _ = strategy.round(strategy.init(7), EXAMPLES, order)

    graphdef, full, rest = nnx.split(model(nnx.Rngs(0)), nnx.Param, ...)
    full = jax.tree.map(np.asarray, nnx.to_pure_dict(full))
    axes = strategy._assignment.axes
    parts = partition(jax.random.fold_in(jax.random.key(7), 0), {layer: width}, 2)[layer]
    parts = np.asarray(parts)

    @jax.jit
    @jax.grad
    def gradient(params, rows):
        logits = nnx.merge(graphdef, params, rest)(EXAMPLES["x"][rows])
        y = EXAMPLES["y"][rows]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    trained = []
    for worker in range(2):
        params = jax.tree.map(
            lambda p, names, part=parts[worker]: (
                p.take(part, names.index(layer)) if layer in names else p
            ),
            full,
            axes,
        )
        for rows in order[worker]:
            gradients = jax.tree.map(np.asarray, gradient(params, rows))
            params = jax.tree.map(lambda p, g: p - np.float32(0.1) * g, params, gradients)
        trained.append(params)

    def check(result, names, *pieces):
        result = np.asarray(result)
        if layer not in names:
            np.testing.assert_allclose(result, np.mean(pieces, axis=0), atol=1e-5)
            return
        for part, piece in zip(parts, pieces, strict=True):
            np.testing.assert_allclose(result.take(part, names.index(layer)), piece, atol=1e-5)

    jax.tree.map(check, state.params, axes, *trained)


def test_of_a_resnet_only_the_head_is_cut():
    model = ResNet(nnx.Rngs(0))
    sizes = [p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))]
    strategy = IST(model, optax.sgd(0.1), workers=2, local_steps=1)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    cut = jax.tree.map(lambda _, names: any(names), params, neuron_axes(model))
    assert {name for name, part in cut.items() if any(jax.tree.leaves(part))} == {"head"}
    assert strategy.parameters_per_worker == sum(sizes) - (8 * 12 + 12 + 12 * 3) // 2


def test_unequal_workers_train_their_shares():
    model = MLP((4, 12, 8, 3), rngs=nnx.Rngs(0))
    options = {"workers": 2, "local_steps": 2, "shares": (0.75, 0.25)}
    strategy = IST(model, optax.sgd(0.1), **options)
    examples = {"x": EXAMPLES["x"][:, :4, 0, 0], "y": EXAMPLES["y"]}
    state = strategy.init(7)
    before = np.asarray(state.params["layers"][1]["kernel"])
    order = np.random.default_rng(0).integers(0, 40, (2, 2, 8)).astype(np.int32)
    state, _ = strategy.round(state, examples, order)
    changed = np.asarray(state.params["layers"][1]["kernel"]) != before
    key = jax.random.fold_in(jax.random.key(7), 0)
    widths = {"hidden1": 12, "hidden2": 8}
    parts = partition(key, widths, 2, shares=(0.75, 0.25))
    allowed = np.zeros((12, 8), bool)
    for rows, columns in zip(parts["hidden1"], parts["hidden2"], strict=True):
        allowed[np.ix_(rows[rows < 12], columns[columns < 8])] = True
    assert allowed.sum() == 9 * 6 + 3 * 2
    assert not changed[~allowed].any()
    assert changed[allowed].mean() > 0.7
    assert strategy.parameters_per_worker == 4 * 9 + 9 * 6 + 6 * 3 + 3


def test_scaled_subnets_estimate_the_full_network_without_bias():
    """VLDB 2022, Appendix A, with linear activations: the mean over partitions of what the subnets
    compute converges to what the full network computes, as one over the root of their number."""
    model = MLP((5, 8, 7, 3), norm="scale", rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    # Nothing negative: ReLU does nothing. The bias is for those neurons that every worker has.
    params, rest = jax.tree.map(jnp.abs, nnx.to_pure_dict(params)), nnx.to_pure_dict(rest)
    params["layers"][2]["bias"] = jnp.array([1.0, 2.0, 3.0])
    x = jax.random.uniform(jax.random.key(1), (1, 5))
    assignment, draws = Assignment(model, 2, "uniform"), 4000

    def subnets(key):
        parts = assignment.parts(key)
        cuts = cut(params, assignment.axes, parts), cut(rest, assignment.rest_axes, parts)
        return jax.vmap(lambda *of_one: nnx.merge(graphdef, *of_one)(x)[0])(*cuts).mean(axis=0)

    found = jax.jit(jax.vmap(subnets))(jax.random.split(jax.random.key(0), draws))
    full = np.asarray(x[0], np.float64)
    for layer in range(3):
        full = full @ np.asarray(params["layers"][layer]["kernel"], np.float64)
    full += [1, 2, 3]
    error = np.std(found, axis=0) / np.sqrt(draws)
    assert (np.abs(np.mean(found, axis=0) - full) < 5 * error).all()
    assert (error < 0.02 * full).all()


def test_the_scale_module_is_that_factor_on_every_worker():
    model = MLP((4, 7, 3), norm="scale", rngs=nnx.Rngs(0))
    strategy = IST(model, optax.sgd(0.0), workers=2, local_steps=1)
    examples = {"x": EXAMPLES["x"][:, :4, 0, 0], "y": EXAMPLES["y"]}
    order = np.tile(np.arange(8, dtype=np.int32), (2, 1, 1))
    state = strategy.init(7)
    params = jax.tree.map(np.asarray, state.params)
    _, metrics = strategy.round(state, examples, order)
    parts = partition(jax.random.fold_in(jax.random.key(7), 0), {"hidden1": 7}, 2)["hidden1"]
    for worker, part in enumerate(np.asarray(parts)):
        own = part[part < 7]
        hidden = np.maximum(examples["x"][:8] @ params["layers"][0]["kernel"][:, own], 0)
        last = params["layers"][1]
        logits = (hidden * 7 / len(own)) @ last["kernel"][own] + last["bias"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, examples["y"][:8]).mean()
        np.testing.assert_allclose(metrics["loss"][worker], loss, rtol=1e-5)


class Normed(nnx.Module):
    """Statistics of inputs, which no parameter shares an axis with, before a head."""

    def __init__(self, rngs, name="inputs"):
        self.inputs = Standardize(6, name)
        self.head = MLP((6, 12, 3), rngs=rngs)

    def __call__(self, x):
        return self.head(self.inputs(x))


def test_what_no_parameter_shares_is_held_by_every_worker():
    examples = {"x": jax.random.normal(jax.random.key(1), (40, 6)), "y": EXAMPLES["y"]}
    order = np.random.default_rng(0).integers(0, 40, (2, 3, 8)).astype(np.int32)
    strategy = IST(Normed(nnx.Rngs(0)), optax.sgd(0.1), workers=2, local_steps=3)
    _, metrics = strategy.round(strategy.init(7), examples, order)
    assert np.isfinite(metrics["loss"]).all()


def test_statistics_of_another_width_than_their_layer_are_refused():
    with pytest.raises(ValueError, match="neurons 'hidden1' must have one width, got 12 and.* 6"):
        IST(Normed(nnx.Rngs(0), "hidden1"), optax.sgd(0.1), workers=2, local_steps=3)


def test_the_model_that_is_given_keeps_its_mode():
    model = MLP((6, 12, 3), rngs=nnx.Rngs(0))
    model.eval()
    strategy = IST(model, optax.sgd(0.1), workers=2, local_steps=3)
    assert model.corrections[0].use_running_average
    assert not strategy.model(strategy.init(0)).corrections[0].use_running_average


def test_an_ensemble_refuses_subnets_that_are_scaled():
    model = MLP((6, 12, 3), norm="scale", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="model must not correct its subnets"):
        Ensemble(model, optax.sgd(0.1), workers=2, local_steps=3)
