"""The encoder against formulas, and against its own invariants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from jist.models import MAEEncoder, ViTConfig
from jist.models.positions import resize_positions, sincos_positions
from jist.models.vit import patchify

CONFIG = ViTConfig(16, 4, dim=32, depth=2, heads=4, mlp_dim=64)
run = nnx.jit(lambda encoder, images, keep: encoder(images, keep))


@pytest.fixture(scope="module")
def encoder():
    return filled(lambda: MAEEncoder(CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


def size(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def test_published_sizes():
    # Parameters of the three encoders, as the ViT and MAE papers give them: 86, 304, 632 M.
    for config, millions in (
        (ViTConfig.base(), 86),
        (ViTConfig.large(), 303),
        (ViTConfig.huge(), 631),
    ):
        # One block stands for all: building 32 of them takes seconds.
        shallow = dataclasses.replace(config, depth=1)
        encoder = nnx.eval_shape(lambda shape=shallow: MAEEncoder(shape, rngs=nnx.Rngs(0)))
        total = size(encoder) + (config.depth - 1) * size(encoder.blocks[0])
        assert total // 10**6 in (millions, millions - 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image_size": 15}, "image_size must be a multiple of patch_size"),
        ({"heads": 5}, "dim must be a multiple of heads"),
        ({"depth": 0}, "depth must be positive"),
        ({"dim": 30, "heads": 5}, "multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit(wrong, said):
    sizes = {"image_size": 16, "patch_size": 4, "dim": 32, "heads": 4}
    with pytest.raises(ValueError, match=said):
        ViTConfig(**sizes | wrong)


def test_positions_follow_the_formula():
    positions = sincos_positions(8, 3)
    assert not positions[0].any()
    row, column = 2, 1
    omega = np.array([1, 1e-2])  # 10000^(-k / 2)
    expected = [f(x * omega) for x in (column, row) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(positions[1 + 3 * row + column], np.concatenate(expected), rtol=1e-6)


@pytest.mark.parametrize("grid", [3, 7, 10, 14])
def test_positions_on_another_grid_are_pytorch_s(grid):
    torch = pytest.importorskip("torch", reason="the oracle of the interpolation")
    stored = np.random.default_rng(0).normal(size=(1 + 49, 8)).astype(np.float32)
    resized = resize_positions(stored, grid)
    image = torch.from_numpy(stored[1:]).reshape(1, 7, 7, 8).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(
        image, size=(grid, grid), mode="bicubic", align_corners=False
    )
    theirs = theirs.permute(0, 2, 3, 1).reshape(grid**2, 8).numpy()
    np.testing.assert_array_equal(resized[0], stored[0])
    np.testing.assert_allclose(resized[1:], theirs, atol=1e-5)


@given(old=st.integers(1, 9), new=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_interpolation_keeps_what_is_constant(old, new):
    stored = np.full((1 + old**2, 4), 2.5, np.float32)
    np.testing.assert_allclose(resize_positions(stored, new), np.full((1 + new**2, 4), 2.5), 1e-6)


def test_patches_are_cut_by_row_with_channels_last():
    image = np.arange(6 * 6 * 3, dtype=np.float32).reshape(1, 6, 6, 3)
    patches = patchify(jnp.asarray(image), 3)
    assert patches.shape == (1, 4, 27)
    np.testing.assert_array_equal(patches[0, 1], image[0, :3, 3:].ravel())
    np.testing.assert_array_equal(patches[0, 2], image[0, 3:, :3].ravel())


def test_no_mask_is_all_patches(encoder, images):
    everything = jnp.tile(jnp.arange(16, dtype=jnp.int32), (2, 1))
    np.testing.assert_allclose(
        run(encoder, images, None), run(encoder, images, everything), atol=1e-5
    )


def test_masked_patches_change_nothing(encoder, images):
    keep = jnp.asarray([[0, 5, 9], [1, 2, 15]], jnp.int32)
    visible = np.zeros((2, 4, 4), bool)
    for image, patches in enumerate(keep):
        visible[image].flat[np.asarray(patches)] = True
    pixels = np.kron(visible, np.ones((1, 4, 4), bool))[..., None]
    noise = jax.random.normal(jax.random.key(2), images.shape)
    other = jnp.where(pixels, images, noise)
    np.testing.assert_array_equal(run(encoder, images, keep), run(encoder, other, keep))
    assert jnp.abs(run(encoder, images, None) - run(encoder, other, None)).max() > 0.1


def test_order_of_the_kept_patches_is_the_order_of_the_tokens(encoder, images):
    keep = jnp.asarray([[0, 5, 9, 12], [1, 2, 3, 15]], jnp.int32)
    turned = run(encoder, images, keep[:, ::-1])
    tokens = run(encoder, images, keep)
    np.testing.assert_allclose(turned[:, 0], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(turned[:, 1:], tokens[:, :0:-1], atol=1e-5)


def test_cls_alone_is_the_cls_of_all_tokens(encoder, images):
    keep = jnp.asarray([[1, 4, 6], [0, 2, 7]], jnp.int32)
    cls = encoder(images[:2], keep, wanted=1)
    np.testing.assert_allclose(cls, encoder(images[:2], keep)[:, :1], atol=1e-5)


def test_one_example_does_not_see_another(encoder, images):
    keep = jnp.asarray([[0, 5], [1, 2]], jnp.int32)
    both = run(encoder, images, keep)
    np.testing.assert_allclose(both[:1], run(encoder, images[:1], keep[:1]), atol=1e-5)


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters(encoder, images):
    narrow = filled(lambda: MAEEncoder(CONFIG, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(narrow))} == {jnp.dtype("float32")}
    tokens, wide = run(narrow, images, None), run(encoder, images, None)
    assert tokens.dtype == jnp.bfloat16
    difference = jnp.linalg.norm(tokens - wide, axis=-1) / jnp.linalg.norm(wide, axis=-1)
    assert difference.max() < 2e-2


def test_wrong_image_size_is_named(encoder):
    with pytest.raises(ValueError, match=r"\[batch, 16, 16, 3\], got \[1, 20, 20, 3\]"):
        encoder(jnp.zeros((1, 20, 20, 3)), None)
