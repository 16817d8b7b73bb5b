"""A step of pre-training against the same step written out, and on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from jist import placement
from jist.masking import random_keep
from jist.models import MAE, DecoderConfig, ViTConfig
from jist.pretraining import Pretraining, adamw, random_view

CONFIG = ViTConfig(8, 2, dim=16, depth=1, heads=2, mlp_dim=32)
BATCH = 16


@functools.cache
def mae():
    return MAE(CONFIG, DecoderConfig(16, 1, 2, 32), rngs=nnx.Rngs(0))


def images(count=40):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def pretraining(devices=1, **options):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    return Pretraining(mae(), optax.sgd(0.1), mesh=mesh, **options)


def run(trainer, holes, steps=3):
    """Trains on images whose number of patches differs, or on whole ones."""
    pixels = images()
    if holes:
        there = np.full((40, 8, 8, 1), 255, np.uint8)
        there[::3, 2:] = 0
        pixels = np.concatenate([pixels, there], axis=3)
    state, pixels = trainer.init(0), trainer.place(pixels)
    losses = []
    for step in range(steps):
        rows = np.random.default_rng(step).integers(0, 40, BATCH).astype(np.int32)
        state, loss = trainer.step(state, pixels, rows)
        losses.append(float(loss))
    return state, losses


def test_a_step_is_the_gradient_of_the_loss_on_masked_views():
    trainer = pretraining()
    rows = np.arange(BATCH, dtype=np.int32)
    state, loss = trainer.step(trainer.init(5), trainer.place(images()), rows)
    views, keep = [], []
    keys = jax.random.split(jax.random.fold_in(jax.random.key(5), 0), BATCH)
    for row, key in zip(rows, keys, strict=True):
        view_key, mask_key = jax.random.split(key)
        views.append(jax.jit(random_view)(view_key, jnp.asarray(images()[row])))
        keep.append(random_keep(mask_key, 1, CONFIG.patches, 0.75)[0])
    normalised = mae().encoder.preprocessing.normalize(jnp.stack(views))
    keep = jnp.stack(keep)
    graphdef, params, rest = nnx.split(mae(), nnx.Param, ...)
    lose = lambda params, rest: nnx.merge(graphdef, params, rest).loss(normalised, keep)  # noqa: E731
    expected, gradients = jax.jit(jax.value_and_grad(lose))(params, rest)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
    after = nnx.state(trainer.model(state), nnx.Param)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), after, stepped)


@functools.cache
def at_one_go(holes):
    return run(pretraining(1), holes)


@pytest.mark.parametrize(
    ("devices", "accumulate", "holes"), [(4, None, False), (1, 2, True), (4, 2, True)]
)
def test_the_result_does_not_depend_on_devices_and_parts(devices, accumulate, holes):
    whole, losses = at_one_go(holes)
    same, others = run(pretraining(devices, accumulate=accumulate), holes)
    np.testing.assert_allclose(losses, others, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole.params, same.params
    )


def test_a_cpu_computes_as_many_images_at_once_as_are_fastest(monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    monkeypatch.setattr(placement, "available_cores", lambda: 1)
    assert placement.at_once(256, 17) == 32
    assert placement.at_once(7, 17) == 7
    assert placement.at_once(32, 197) == 4
    monkeypatch.setattr(placement, "available_cores", lambda: 2)
    assert placement.at_once(256, 17) == 64
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)  # of one core each
    assert placement.at_once(256, 17) == 32
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert placement.at_once(256, 17) == 256


def test_images_with_holes_train_on_what_is_there():
    trainer = pretraining(4, mask_ratio=0.5)
    rows = np.arange(BATCH, dtype=np.int32)

    def step(pixels):
        state, loss = trainer.step(trainer.init(0), trainer.place(pixels), rows)
        return state.params, float(loss)

    whole = np.concatenate([images(), np.full((40, 8, 8, 1), 255, np.uint8)], axis=3)
    (params, loss), (same_params, same) = step(images()), step(whole)
    assert loss == pytest.approx(same, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, same_params)
    # The lower half of some images is missing, the whole of others: it does not matter what is
    # there.
    holes = []
    for value in (0, 255):
        pixels = whole.copy()
        pixels[::2, 4:] = [value, value, value, 0]
        pixels[::5] = [value, value, value, 0]
        holes.append(step(pixels))
    assert np.isfinite(holes[0][1])
    assert holes[0][1] != pytest.approx(loss, rel=1e-3)
    assert holes[0][1] == pytest.approx(holes[1][1], rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), holes[0][0], holes[1][0])


def test_the_learning_rate_follows_the_recipe():
    optimizer, learning_rate = adamw(1.5e-4, 512, steps=100, warmup_steps=10)
    rates = np.asarray([learning_rate(step) for step in range(101)])
    peak = 1.5e-4 * 2
    np.testing.assert_allclose(rates[:11], np.linspace(0, peak, 11), rtol=1e-5, atol=1e-9)
    cosine = peak * (1 + np.cos(np.pi * np.arange(91) / 90)) / 2
    np.testing.assert_allclose(rates[10:], cosine, rtol=1e-4, atol=1e-9)
    # Without a gradient only weight decay changes a parameter.
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    state = optimizer.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        updates, state = optimizer.update(zeros, state, params)
    np.testing.assert_allclose(updates["kernel"], -0.05 * rates[1], rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio must leave out at least one patch, got 0.0"),
        ({"mask_ratio": 0.99}, "keeps none of the 16 patches"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        pretraining(**options)


def test_a_batch_that_does_not_divide_is_told():
    trainer = pretraining(4, accumulate=2)
    with pytest.raises(ValueError, match=r"devices x accumulate = 4 x 2, got 12"):
        trainer.step(trainer.init(0), trainer.place(images()), np.arange(12, dtype=np.int32))
    with pytest.raises(ValueError, match=r"warmup_steps must lie in \[0, 10\), got 10"):
        adamw(1e-3, 256, steps=10, warmup_steps=10)
