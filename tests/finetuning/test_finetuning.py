"""Views, learning rates and masks of fine-tuning, each beside its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.data import load_dataset
from jist.finetuning import MaskedImages, Mirrored, adamw_by_depth
from jist.models import Classifier, MAEEncoder, ViTConfig
from jist.models.vit import patchify

CONFIG = ViTConfig(8, 2, dim=16, depth=2, heads=2, mlp_dim=32)


def test_a_mirrored_image_shows_the_pixels_that_its_mask_shows():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    keep = jnp.asarray([1, 4, 7, 10, 15], jnp.int32)
    shown = patchify(jnp.asarray(image, jnp.float32)[None], 2)[0][keep].reshape(5, 2, 2, 3)
    seen = set()
    for seed in range(8):
        view, places = Mirrored(4)(jax.random.key(seed), jnp.asarray(image), keep)
        patches = patchify(view[None], 2)[0][places].reshape(5, 2, 2, 3)
        mirrored = bool((places != keep).any())
        np.testing.assert_array_equal(patches[:, :, ::-1] if mirrored else patches, shown)
        np.testing.assert_array_equal(places // 4, keep // 4)
        seen.add(mirrored)
    assert seen == {False, True}


@pytest.fixture(scope="module")
def model():
    return Classifier(MAEEncoder(CONFIG, rngs=nnx.Rngs(0)), 3, rngs=nnx.Rngs(0))


def test_the_learning_rate_falls_with_every_block_below(model):
    """Beside AdamW with one rate: the ratio of the updates is the factor of the layer."""
    options = {"steps": 10, "warmup_steps": 2, "weight_decay": 0.1}
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    gradient = jax.tree.map(
        lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params
    )
    updates = []
    for decay in (0.5, 1.0):
        optimizer = adamw_by_depth(1e-2, depth=2, layer_decay=decay, **options)
        state = optimizer.init(params)
        for _ in range(2):
            update, state = optimizer.update(gradient, state, params)
        updates.append(update)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 10)
    plain = optax.adamw(schedule, weight_decay=0.1, mask=jax.tree.map(lambda p: p.ndim > 1, params))
    state = plain.init(params)
    for _ in range(2):
        update, state = plain.update(gradient, state, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates[1], update)
    slow, fast = updates
    factors = {
        ("head",): 1.0,
        ("encoder", "norm"): 1.0,
        ("encoder", "blocks", 1): 0.5,
        ("encoder", "blocks", 0): 0.25,
        ("encoder", "embed"): 0.125,
        ("encoder", "cls"): 0.125,
    }
    for path, factor in factors.items():
        a, b = slow, fast
        for key in path:
            a, b = a[key], b[key]
        expected = jax.tree.map(lambda y, factor=factor: factor * y, b)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup_steps": 10}, r"warmup_steps must lie in \[0, 10\), got 10"),
        ({"layer_decay": 0.0}, r"layer_decay must lie in \(0, 1\], got 0"),
    ],
)
def test_wrong_schedules_are_refused(wrong, message):
    options = {"depth": 2, "layer_decay": 0.5, "steps": 10, "warmup_steps": 1} | wrong
    with pytest.raises(ValueError, match=message):
        adamw_by_depth(1e-3, **options)


def test_masks_follow_from_seed_epoch_and_example(model):
    images = MaskedImages(load_dataset("digits", "test"), model.encoder, ratio=0.75, seed=3)
    assert images.fixed["x"]["image"].dtype == np.uint8
    assert images.fixed["x"]["keep"].shape == (359, 4)
    first, again, second = (np.asarray(images.random(e)["x"]["keep"]) for e in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any(axis=1).mean() > 0.9
    assert images.random(1)["x"]["image"] is images.fixed["x"]["image"]
