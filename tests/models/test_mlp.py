import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jist
from jist.models import MLP, Statistic


def numpy_mlp(params, x, norm):
    """The forward pass of the full network in training mode, in float64."""
    layers = [params["layers"][i] for i in sorted(params["layers"])]
    for layer in layers[:-1]:
        x = x @ np.float64(layer["kernel"])
        if "bias" in layer:
            x = x + np.float64(layer["bias"])
        if norm == "standardize":
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        x = np.maximum(x, 0)
    return x @ np.float64(layers[-1]["kernel"]) + np.float64(layers[-1]["bias"])


@pytest.mark.parametrize("norm", ["standardize", "scale", None])
def test_forward_agrees_with_numpy(norm):
    model = MLP((6, 8, 5, 3), norm=norm, rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    x = jax.random.normal(jax.random.key(1), (16, 6))
    expected = numpy_mlp(params, np.float64(x), norm)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_calibration_deploys_the_statistics_of_the_full_network():
    model = MLP((6, 8, 5, 3), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (32, 6))
    trained = model(x)
    jist.calibrate(model, x)
    np.testing.assert_allclose(model(x), trained, atol=1e-6)
    # Deployed statistics make an example's logits independent of its batch.
    np.testing.assert_allclose(model(x[:1]), trained[:1], atol=1e-6)
    first = np.float64(x) @ np.float64(model.layers[0].kernel[...])
    np.testing.assert_allclose(model.corrections[0].mean[...], first.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.corrections[0].var[...], first.var(0), rtol=1e-5)


def test_calibration_measures_statistics_and_leaves_random_streams_alone():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.BatchNorm(6, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), MLP((6, 8, 3), rngs=rngs)
    )
    measured = nnx.Any(Statistic, nnx.BatchStat)
    others = nnx.to_pure_dict(nnx.state(model, nnx.Not(measured)))
    before = jax.tree.map(jnp.copy, others)
    x = np.asarray(5 + jax.random.normal(jax.random.key(1), (32, 6)))
    jist.calibrate(model, x)
    np.testing.assert_allclose(model.layers[0].mean[...], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.layers[0].var[...], x.var(0), rtol=1e-4)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(measured)))
    jax.tree.map(np.testing.assert_array_equal, *map(_data, (before, after)))
    assert not np.allclose(model.layers[2].corrections[0].mean[...], 0)


def _data(tree):
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )


def test_standardisation_is_safe_for_constant_neurons():
    model = MLP((4, 3, 2), rngs=nnx.Rngs(0))
    x = jnp.ones((8, 4))

    def loss(model):
        return jnp.sum(model(x) ** 2)

    assert np.isfinite(model(x)).all()
    gradients = jax.tree.leaves(nnx.grad(loss)(model))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_batch_of_one_cannot_be_standardised_in_training():
    model = MLP((4, 3, 2), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="batch of at least 2 examples, got 1"):
        model(jnp.ones((1, 4)))


def test_the_full_network_is_scaled_by_one():
    plain, scaled = (MLP((4, 6, 2), norm=norm, rngs=nnx.Rngs(0)) for norm in (None, "scale"))
    x = jax.random.normal(jax.random.key(0), (3, 4))
    np.testing.assert_array_equal(plain(x), scaled(x))
    assert jax.tree.leaves(nnx.state(scaled, Statistic))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (4,)}, "widths must be at least two positive integers"),
        ({"widths": (4, 0, 2)}, "widths must be at least two positive integers"),
        ({"norm": "batch"}, "norm must be one of"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"widths": (4, 3, 2), **arguments}, rngs=nnx.Rngs(0))
