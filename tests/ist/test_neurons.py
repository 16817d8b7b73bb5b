import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from jist.ist import layer_widths, neuron_axes, optimizer_axes
from jist.models import MLP


def params_of(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def linear(inputs, outputs, neurons):
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=False,
        kernel_init=nnx.with_metadata(nnx.initializers.lecun_normal(), neurons=neurons),
        rngs=nnx.Rngs(0),
    )


def test_the_mlp_names_its_hidden_layers():
    model = MLP((4, 6, 5, 3), norm=None, rngs=nnx.Rngs(0))
    axes = neuron_axes(model)
    assert axes["layers"] == {
        0: {"kernel": (None, "hidden1"), "bias": ("hidden1",)},
        1: {"kernel": ("hidden1", "hidden2"), "bias": ("hidden2",)},
        2: {"kernel": ("hidden2", None), "bias": (None,)},
    }
    assert layer_widths(params_of(model), axes) == {"hidden1": 6, "hidden2": 5}


def test_moments_lie_along_the_neurons_of_their_parameters_and_counters_along_none():
    model = MLP((4, 6, 3), rngs=nnx.Rngs(0))
    params, axes = params_of(model), neuron_axes(model)
    schedule = optax.cosine_decay_schedule(1e-3, 100)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    state_axes = optimizer_axes(optimizer, params, axes)
    adam = state_axes[1][0]
    assert adam.mu == axes
    assert adam.nu == axes
    assert adam.count == ()


def test_an_optimiser_may_leave_parameters_out():
    model = MLP((4, 6, 3), rngs=nnx.Rngs(0))
    params, axes = params_of(model), neuron_axes(model)
    of_kernels = optax.masked(optax.adam(1e-3), lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    state_axes = optimizer_axes(of_kernels, params, axes)
    first, last = state_axes.inner_state[0].mu["layers"].values()
    assert first["kernel"] == (None, "hidden1")
    assert last == {"kernel": ("hidden1", None), "bias": optax.MaskedNode()}


def test_an_optimiser_whose_state_has_other_shapes_is_refused():
    model = MLP((200, 300, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"optimizer keeps an array of the shape .* \(200, 300\)"):
        optimizer_axes(optax.adafactor(1e-3), params_of(model), neuron_axes(model))


def test_metadata_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="neurons of kernel must name one layer or None for each"):
        neuron_axes(linear(4, 6, (None, "hidden", None)))


def test_one_name_for_two_widths_is_refused():
    model = nnx.Sequential(linear(4, 6, (None, "hidden")), linear(6, 5, (None, "hidden")))
    with pytest.raises(ValueError, match="neurons 'hidden' must have one width, got 6 and, in"):
        layer_widths(params_of(model), neuron_axes(model))


def test_a_model_that_names_no_neurons_is_refused():
    with pytest.raises(ValueError, match="names no neurons"):
        layer_widths({"w": jnp.zeros((2, 2))}, {"w": (None, None)})
