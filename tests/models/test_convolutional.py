"""Networks of convolutions and their subnetworks: whole blocks, channels, the dense part."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist import calibrate, costs
from jist.ist import Assignment, check, cut, neuron_axes
from jist.models import VGG12, Convolution, ResNet18, Stack
from jist.models.convolution import convolve
from jist.models.resnet18 import BasicBlock
from jist.strategies import IST, softmax_cross_entropy, workers_mesh

X = jax.random.uniform(jax.random.key(0), (6, 8, 8, 3))  # as behind a ReLU
Y = jnp.arange(6) % 3


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(1, 2, (5, 4)), (3, 1, (4, 6)), (5, 2, (7, 8))]
)
def test_a_convolution_has_the_gradients_of_xla(size, stride, shape, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    generator = np.random.default_rng(0)
    layer = Convolution(2, 3, size, stride=stride, rngs=nnx.Rngs(0))
    x = jnp.asarray(generator.normal(size=(2, *shape, 2)), jnp.float32)
    target = jnp.asarray(generator.normal(size=layer(x).shape), jnp.float32)

    def gradients(function):
        return jax.grad(lambda x, w: jnp.sum(target * function(x, w)), (0, 1))(x, layer.kernel[...])

    pads = ((size // 2, size // 2),) * 2

    def plain(x, w):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (stride,) * 2, pads, dimension_numbers=layout)

    np.testing.assert_allclose(layer(x), plain(x, layer.kernel[...]), atol=1e-5)
    wanted = gradients(plain)
    for found, own in zip(gradients(lambda x, w: convolve(x, w, stride)), wanted, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-4)


def in_turn(blocks, x):
    for block in blocks:
        x = block(x)
    return x


def some_blocks(channels=None):
    return [BasicBlock(2, 2, channels=channels, rngs=nnx.Rngs(seed)) for seed in range(3)]


def test_a_stack_is_its_blocks_one_after_the_other():
    blocks, x = some_blocks(), X[..., :2]
    stack = Stack(blocks, "blocks?")
    np.testing.assert_allclose(nnx.jit(lambda s, x: s(x))(stack, x), in_turn(blocks, x), atol=1e-5)
    for number, block in enumerate(blocks):  # what they noted of the batch
        for norm in ("norm1", "norm2"):
            mean = getattr(stack.each, norm).mean[number]
            np.testing.assert_allclose(mean, getattr(block, norm).mean[...], atol=1e-6)


@pytest.mark.parametrize("workers", [2, 4])  # of 3 blocks, the fourth worker has none
def test_a_worker_goes_round_the_blocks_and_without_the_channels_that_it_lacks(workers):
    x = X[..., :2]
    stack = Stack(some_blocks("channels?"), "blocks?")
    assignment = Assignment(stack, workers, "uniform")
    assert assignment.widths == {"blocks?": 3, "channels?": 2}
    graphdef, params, rest = nnx.split(stack, nnx.Param, ...)
    parts = assignment.parts(jax.random.key(5))
    params = cut(nnx.to_pure_dict(params), assignment.axes, parts)
    rest = cut(nnx.to_pure_dict(rest), assignment.rest_axes, parts)
    found = jax.jit(jax.vmap(lambda *own: nnx.merge(graphdef, *own)(x)))(params, rest)
    for worker in range(workers):
        blocks = some_blocks()
        lacking = sorted({0, 1} - set(np.asarray(parts["channels?"][worker]).tolist()))
        for block in blocks:
            kernel = np.array(block.conv2.kernel[...])
            kernel[:, :, lacking] = 0
            block.conv2.kernel[...] = jnp.asarray(kernel)
        own = [blocks[n] for n in np.asarray(parts["blocks?"][worker]) if n < 3]
        np.testing.assert_allclose(found[worker], in_turn(own, x), atol=1e-5)


def shared(model):
    """Numbers that lie along no neurons."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    sizes = jax.tree.map(lambda p, axes: 0 if any(axes) else p.size, params, neuron_axes(model))
    return sum(jax.tree.leaves(sizes))


def test_the_published_size_and_what_is_dealt_of_it():
    """11.7 M for 1,000 classes at 224 pixels (torchvision's), 11.2 M for CIFAR-10."""
    large = nnx.eval_shape(lambda: ResNet18(1000, small=False, neurons=(), rngs=nnx.Rngs(0)))
    small = nnx.eval_shape(lambda: ResNet18(10, rngs=nnx.Rngs(0)))
    count = [costs.count(nnx.state(m, nnx.Param)) for m in (large, small)]
    assert count == [11_689_512, 11_173_962]
    widths = Assignment(small, 2, "uniform").widths
    assert widths == {
        "stage1.blocks?": 2,
        "stage2.blocks?": 1,
        "stage3.blocks?": 1,
        "stage4.blocks?": 1,
        "stage4.channels1": 512,
        "stage4.channels2": 512,
    }
    assert shared(small) / count[1] < 0.25


@pytest.mark.parametrize("neurons", [("blocks", "channels")])
def test_what_is_dealt_does_not_change_the_network(neurons):
    models = [ResNet18(3, neurons=n, width=2, rngs=nnx.Rngs(0)) for n in ((), neurons)]
    logits = [nnx.jit(lambda m, x: m(x))(model, X) for model in models]
    np.testing.assert_allclose(*logits, atol=1e-5)
    assert logits[0].shape == (6, 3)


class Small(nnx.Module):
    """Blocks of a ResNet between a projection and a head."""

    def __init__(self, rngs):
        self.stem = Convolution(3, 2, 1, rngs=rngs)
        self.stack = Stack(some_blocks("channels"), "blocks?")
        self.head = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.stack(jax.nn.relu(self.stem(x))).mean(axis=(1, 2)))


def test_blocks_are_trained_by_parts_on_any_number_of_devices():
    """Each worker with blocks and channels of its own; then BatchNorm is measured on the whole."""
    examples = {"x": X, "y": Y}
    order = np.arange(24, dtype=np.int32).reshape(2, 2, 6) % 6
    states = []
    for devices in (1, 2):
        mesh = workers_mesh(2, devices)
        strategy = IST(Small(nnx.Rngs(0)), optax.sgd(0.1), workers=2, local_steps=2, mesh=mesh)
        state, metrics = strategy.round(strategy.init(0), examples, order)
        states.append(jax.tree.map(np.asarray, state.params))
        assert np.isfinite(metrics["loss"]).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *states)
    model = strategy.model(state)
    calibrate(model, X)
    deployed = model(X)
    assert (np.abs(model.stack.each.norm2.mean[...]) > 1e-4).all()
    np.testing.assert_allclose(model(X), deployed)


def test_of_vgg_the_dense_part_is_dealt():
    model = VGG12(8, 3, hidden=(6, 4), width=2, steps=((1,), (2, 2)), rngs=nnx.Rngs(0))
    assignment = Assignment(model, 2, "uniform")
    assert assignment.widths == {"hidden1": 6, "hidden2": 4}
    convolutions = 9 * (3 * 2 + 2 * 4 + 4 * 4) + 2 * (2 + 4 + 4)
    assert shared(model) == convolutions + 3  # the output's bias
    strategy = IST(model, optax.sgd(0.1), workers=2, local_steps=1)
    dense = 16 * 3 + 3 * 2 + 2 * 3
    assert strategy.parameters_per_worker == convolutions + 3 + dense
    check(model, softmax_cross_entropy, {"x": X, "y": Y})


def test_wrong_shapes_and_neurons_are_refused():
    with pytest.raises(ValueError, match="image_size must be a multiple of 32, got 100"):
        VGG12(100, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="neurons must be some of .*got ..layers.,."):
        ResNet18(3, neurons=("layers",), rngs=nnx.Rngs(0))
