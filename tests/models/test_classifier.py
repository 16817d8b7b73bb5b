"""The classifier of masked images, and its subnetworks, beside NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx

from jist.finetuning import Cropped
from jist.ist import Assignment, cut
from jist.models import Classifier, MAEEncoder, ViTConfig, name_neurons, unnamed
from jist.models.neurons import name_block
from jist.models.storage import tensors
from jist.models.transformer import Block

CONFIG = ViTConfig(8, 4, dim=16, depth=1, heads=2, mlp_dim=32)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
KEEP = jnp.asarray([[0, 2], [1, 3], [2, 3]], jnp.int32)


@pytest.fixture(scope="module")
def encoder():
    return filled(lambda: MAEEncoder(CONFIG, rngs=nnx.Rngs(0)))


def tokens(encoder, valid=None):
    images = encoder.preprocessing.normalize(jnp.asarray(IMAGES))
    return np.asarray(called(encoder, images, KEEP, valid), np.float64)


@nnx.jit
def called(model, *given):
    """What a model gives, by one program in place of one for each of its operations."""
    return model(*given)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_logits_are_the_heads_of_what_is_pooled(encoder, pooling):
    model = Classifier(encoder, 5, pooling=pooling, rngs=nnx.Rngs(1))
    model.eval()
    valid = jnp.asarray([[True, True], [True, False], [True, True]])
    logits = called(model, {"image": jnp.asarray(IMAGES), "keep": KEEP, "valid": valid})
    found = tokens(encoder, valid)
    patches = [found[i, 1:][np.asarray(valid)[i]].mean(axis=0) for i in range(3)]
    pooled = found[:, 0] if pooling == "cls" else np.stack(patches)
    kernel = np.asarray(model.head.kernel[...], np.float64)
    np.testing.assert_allclose(logits, pooled @ kernel, atol=1e-5)


def test_views_are_random_in_training_and_there_are_none_when_evaluated(encoder):
    model = Classifier(encoder, 5, views=Cropped(0.5), rngs=nnx.Rngs(1))
    x = {"image": jnp.asarray(IMAGES), "keep": KEEP}
    first, second = np.asarray(model(x)), np.asarray(model(x))
    assert np.abs(first - second).max() > 1e-4
    model.eval()
    plain = Classifier(encoder, 5, rngs=nnx.Rngs(1))(x)
    np.testing.assert_array_equal(model(x), plain)
    np.testing.assert_array_equal(model(x), plain)


def test_an_unknown_pooling_is_refused(encoder):
    with pytest.raises(ValueError, match="pooling must be one of .*got 'max'"):
        Classifier(encoder, 5, pooling="max", rngs=nnx.Rngs(1))


def standardised(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + bias


def block_of(p, x, heads, channels, neurons, width, scaled):
    """A pre-norm block with some heads, channels of these and MLP neurons, one after the other."""
    dim = x.shape[-1]
    total = dim // width
    h = standardised(x, p["norm1.scale"], p["norm1.bias"])
    fused = (h @ p["attention.qkv.kernel"] + p["attention.qkv.bias"]).reshape(-1, 3, total, width)
    out = p["attention.out.kernel"].reshape(total, width, dim)
    x = x + p["attention.out.bias"]
    for head in heads:
        query, key, value = fused[:, :, head][:, :, channels].swapaxes(0, 1)
        weights = np.exp(query @ key.T * width / len(channels) / np.sqrt(width))
        weights /= weights.sum(axis=1, keepdims=True)
        lacking = total * width / (len(heads) * len(channels))
        x = x + weights @ value @ out[head][channels] * (lacking if scaled else 1)
    h = standardised(x, p["norm2.scale"], p["norm2.bias"])
    x = x + p["mlp_out.bias"]
    all_neurons = p["mlp_in.kernel"].shape[1]
    for neuron in neurons:
        z = h @ p["mlp_in.kernel"][:, neuron] + p["mlp_in.bias"][neuron]
        active = np.asarray(jax.nn.gelu(z, approximate=False), np.float64)
        factor = all_neurons / len(neurons) if scaled else 1
        x = x + factor * active[:, None] * p["mlp_out.kernel"][neuron]
    return x


@pytest.mark.parametrize(
    ("kind", "scaled", "workers"),
    [  # of 3 heads, the fourth worker has none; of 4 channels, one of three has two
        ("heads", False, 2),
        ("heads", True, 4),
        ("channels", False, 2),
        ("channels", True, 3),
    ],
)
def test_a_subnetwork_of_a_block_is_the_sum_over_its_heads_and_neurons(kind, scaled, workers):
    block = filled(lambda: Block(12, 3, 10, 1e-6, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    p = {name: np.asarray(array, np.float64) for name, array in tensors(block).items()}
    name_block(block, "block0", ("mlp", kind), correction="scale" if scaled else "none")
    assignment = Assignment(block, workers, "uniform")
    layer = {"heads": "block0.heads?", "channels": "block0.channels"}[kind]
    assert assignment.widths == {layer: {"heads": 3, "channels": 4}[kind], "block0.mlp": 10}
    graphdef, params, rest = nnx.split(block, nnx.Param, ...)
    parts = assignment.parts(jax.random.key(3))
    params = cut(nnx.to_pure_dict(params), assignment.axes, parts)
    rest = cut(nnx.to_pure_dict(rest), assignment.rest_axes, parts)
    x = jax.random.normal(jax.random.key(1), (5, 12))
    found = jax.jit(jax.vmap(lambda *own: nnx.merge(graphdef, *own)(x[None])[0]))(params, rest)
    for worker in range(workers):
        some, neurons = (
            [int(n) for n in parts[of][worker] if n < assignment.widths[of]]
            for of in (layer, "block0.mlp")
        )
        own = (some, range(4)) if kind == "heads" else (range(3), some)
        expected = block_of(p, np.asarray(x, np.float64), *own, neurons, 4, scaled)
        np.testing.assert_allclose(found[worker], expected, atol=2e-5)


DEEP = dataclasses.replace(CONFIG, depth=3)


@pytest.mark.parametrize(
    ("kinds", "correction"),
    [
        (("mlp", "heads"), "reconstruct"),
        (("mlp", "channels"), "scale"),
        (("mlp", "heads", "blocks"), "scale"),
    ],
)
def test_naming_neurons_changes_neither_the_network_nor_its_tensors(kinds, correction):
    plain, named = (filled(lambda: MAEEncoder(DEEP, rngs=nnx.Rngs(0))) for _ in range(2))
    name_neurons(named, kinds, correction=correction)
    np.testing.assert_allclose(tokens(named), tokens(plain), atol=1e-5)
    back, before = tensors(unnamed(named)), tensors(plain)
    assert back.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(back[name], array)
    with pytest.raises(ValueError, match="names no neurons"):
        Assignment(unnamed(named), 2, "uniform")


def test_unknown_neurons_are_refused(encoder):
    with pytest.raises(ValueError, match="neurons must be some of"):
        name_neurons(encoder, ("mlp", "tails"))
    with pytest.raises(ValueError, match="neurons must be heads or channels of all heads"):
        name_neurons(encoder, ("heads", "channels"))
    with pytest.raises(ValueError, match="correction must be one of"):
        name_neurons(encoder, correction="standardize")
    with pytest.raises(ValueError, match="'reconstruct' needs neurons of mlp, heads and channels"):
        name_neurons(encoder, ("blocks",), correction="reconstruct")


def test_a_worker_encodes_with_its_own_blocks_in_their_order():
    """Of three blocks on four workers: each has one or none, and goes round the others."""
    named = filled(lambda: MAEEncoder(DEEP, rngs=nnx.Rngs(0)))
    name_neurons(named, ("blocks",))
    images = named.preprocessing.normalize(jnp.asarray(IMAGES))
    for workers in (2, 4):
        assignment = Assignment(named, workers, "uniform")
        assert assignment.widths == {"blocks?": 3}
        graphdef, params, rest = nnx.split(named, nnx.Param, ...)
        parts = assignment.parts(jax.random.key(2))
        params = cut(nnx.to_pure_dict(params), assignment.axes, parts)
        run = jax.jit(
            jax.vmap(lambda own, g=graphdef, r=rest: nnx.merge(g, own, r)(images, KEEP, None, 1))
        )
        found = run(params)
        for worker in range(workers):
            own = np.asarray(parts["blocks?"][worker])
            few = filled(lambda: MAEEncoder(DEEP, rngs=nnx.Rngs(0)))
            for number in set(range(3)) - set(own.tolist()):
                for layer in (few.blocks[number].attention.out, few.blocks[number].mlp_out):
                    layer.kernel[...], layer.bias[...] = (jnp.zeros(()) for _ in range(2))
            np.testing.assert_allclose(found[worker], called(few, images, KEEP)[:, :1], atol=1e-5)
