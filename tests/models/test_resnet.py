"""ResNet-50's parts against NumPy's plain sums; the whole against PyTorch in tests/conversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx

from jist.models import ResNet50, load_resnet, save_resnet
from jist.models.resnet import Bottleneck
from jist.models.storage import tensors

# Convolutions take far longer to compute where they are not optimised.
pytestmark = pytest.mark.usefixtures("fully_optimised")


@pytest.fixture(scope="module")
def resnet():
    return filled(lambda: ResNet50(rngs=nnx.Rngs(0)))


def test_sizes_of_the_paper(resnet):
    # 25.6 M parameters with the classifier (Table 1 and torchvision), 2048 · 1000 + 1000 in it.
    parameters = jax.tree.leaves(nnx.state(resnet, nnx.Param))
    assert sum(leaf.size for leaf in parameters) == 25_557_032 - 2_049_000


def test_features_are_frozen_averages(resnet):
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    features, gradient = nnx.jit(
        lambda model, x: (model(x), jax.grad(lambda x: model(x).sum())(x))
    )(resnet, images)
    assert features.shape == (2, 2048)
    assert features.dtype == jnp.float32
    assert (features >= 0).all()
    assert not gradient.any()


def test_stride_is_in_the_3_by_3_convolution():
    # Version 1.5, against version 1 with the stride in the first 1×1: hence all pixels count.
    block = filled(lambda: Bottleneck(4, 2, 2, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    assert block.conv1.strides in (1, (1, 1))
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 4))
    touched = nnx.jit(lambda block, x: jax.grad(lambda x: block(x).sum())(x))(block, x)
    assert (jnp.abs(touched).max(axis=-1) > 0).sum() > 4


def test_batch_norm_uses_stored_statistics_with_pytorch_s_epsilon():
    block = filled(lambda: Bottleneck(8, 2, 1, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    block.train()  # a frozen network stays frozen
    norm = block.norm1
    norm.mean[...], norm.var[...] = jnp.asarray([1.0, 2.0]), jnp.asarray([4.0, 0.0])
    assert norm.scale is not None
    assert norm.bias is not None
    norm.scale[...], norm.bias[...] = jnp.ones(2), jnp.zeros(2)
    x = jax.random.normal(jax.random.key(2), (1, 3, 3, 2))
    expected = (np.asarray(x) - [1, 2]) / np.sqrt(np.asarray([4, 0]) + 1e-5)
    np.testing.assert_allclose(norm(x), expected, rtol=1e-5)


def test_comes_back_from_disk(resnet, tmp_path):
    save_resnet(resnet, tmp_path / "resnet", source={"from": "here"})
    loaded = load_resnet(tmp_path / "resnet")
    ours, theirs = tensors(loaded), tensors(resnet)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert loaded.preprocessing == resnet.preprocessing
