"""Mixtures of images and of their classes, beside NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx
from scipy.special import log_softmax

from jist.finetuning import Cropped
from jist.models import Classifier, MAEEncoder, ViTConfig
from jist.models.mixup import Mixture, draw_mixture, mixed
from jist.tasks import classification

CONFIG = ViTConfig(8, 4, dim=16, depth=1, heads=2, mlp_dim=32)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
KEEP = jnp.asarray([[0, 2], [1, 3], [2, 3], [0, 1]], jnp.int32)
BATCH = {"x": {"image": jnp.asarray(IMAGES), "keep": KEEP}, "y": jnp.asarray([3, 0, 2, 1])}


@pytest.fixture(scope="module")
def encoder():
    return filled(lambda: MAEEncoder(CONFIG, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_mixed_images_and_mixed_classes(encoder, smoothing):
    model = Classifier(encoder, 5, mixup=1.0, rngs=nnx.Rngs(1))
    task = classification(label_smoothing=smoothing, mixtures=True)
    share, partner = (np.asarray(of, np.float64) for of in nnx.clone(model).mixture(4))
    partner = partner.astype(int)
    loss = nnx.jit(task.loss)(model, BATCH)

    pixels = share * IMAGES + (1 - share) * IMAGES[partner]
    normal = encoder.preprocessing.normalize(jnp.asarray(pixels, jnp.float32))
    cls = np.asarray(nnx.jit(lambda of, *x: of(*x))(encoder, normal, KEEP))[:, 0]
    logits = cls.astype(np.float64) @ np.asarray(model.head.kernel[...], np.float64)
    targets = np.eye(5)[np.asarray(BATCH["y"])] * (1 - smoothing) + smoothing / 5
    targets = share * targets + (1 - share) * targets[partner]
    expected = -(targets * log_softmax(logits, axis=1)).sum(axis=1).mean()
    assert 0.01 < share < 0.99
    assert loss == pytest.approx(expected, rel=1e-5)
    # The next batch is mixed otherwise; what is evaluated is mixed with nothing.
    assert abs(nnx.jit(task.loss)(model, BATCH) - loss) > 1e-5
    model.eval()
    plain = classification(label_smoothing=smoothing)
    assert task.loss(model, BATCH) == pytest.approx(float(plain.loss(model, BATCH)), rel=1e-6)


def test_views_are_made_before_they_are_mixed(encoder):
    model = Classifier(encoder, 5, mixup=1.0, views=Cropped(0.5), rngs=nnx.Rngs(1))
    x, same = BATCH["x"], jnp.arange(4)
    twin = nnx.clone(model)
    alone = twin(x)
    # A whole share of itself, or of itself as its partner, is the view alone.
    for mixture in (Mixture(jnp.ones(()), same[::-1]), Mixture(jnp.full((), 0.3), same)):
        np.testing.assert_allclose(nnx.clone(model)(x, mixture), alone, atol=1e-5)


def test_shares_are_of_the_beta_distribution():
    keys = jax.random.split(jax.random.key(0), 4000)
    for alpha in (0.2, 1.0, 4.0):
        share, partner = jax.vmap(lambda key, a=alpha: draw_mixture(key, 8, a))(keys)
        assert np.mean(share) == pytest.approx(0.5, abs=0.03)
        assert np.var(share) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
        assert (np.sort(partner, axis=1) == np.arange(8)).all()
        assert np.mean(partner[:, 0]) == pytest.approx(3.5, abs=0.2)
    first, again = (draw_mixture(keys[0], 8, 0.8) for _ in range(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), first, again))


def test_classes_are_mixed_like_images():
    mixture = Mixture(jnp.asarray(0.25), jnp.asarray([1, 0]))
    np.testing.assert_allclose(mixed(jnp.eye(2), mixture), [[0.25, 0.75], [0.75, 0.25]])


def test_a_negative_alpha_is_refused(encoder):
    with pytest.raises(ValueError, match="mixup must be at least 0, got -1"):
        Classifier(encoder, 5, mixup=-1.0, rngs=nnx.Rngs(1))
