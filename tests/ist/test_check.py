import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jist import ist
from jist.models import MLP
from jist.strategies.local import softmax_cross_entropy

BATCH = {
    "x": jax.ShapeDtypeStruct((4, 3), jnp.float32),
    "y": jax.ShapeDtypeStruct((4,), jnp.int32),
}


class Net(nnx.Module):
    """Two layers, whose neurons may be named otherwise on both sides."""

    def __init__(self, out, into, width=12):
        given = {} if out is None else {"kernel_metadata": {"neurons": (None, out)}}
        given |= {} if out is None else {"bias_metadata": {"neurons": (out,)}}
        self.hidden = nnx.Linear(3, width, rngs=nnx.Rngs(0), **given)
        self.out = nnx.Linear(width, 2, rngs=nnx.Rngs(0), kernel_metadata={"neurons": (into, None)})

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


def test_models_that_name_their_neurons_pass():
    ist.check(Net("h", "h"), softmax_cross_entropy, BATCH)
    # Layers of one width are told apart by their names.
    ist.check(MLP((3, 12, 12, 2), rngs=nnx.Rngs(0)), softmax_cross_entropy, BATCH)


@pytest.mark.parametrize(
    ("out", "into", "message"),
    [
        # Both of 12 neurons: two workers would train six of each, and not the same six.
        ("h1", "h", r"'h', which out\.kernel along axis 0 names; .* hidden\.kernel along axis 1"),
        ("h1", None, r"'h1', which hidden\.bias .*, hidden\.kernel along axis 1 name; .* out\.k"),
        (None, "h1", r"'h1', which out\.kernel along axis 0 names; .* hidden\.bias along .*no neu"),
    ],
)
def test_names_that_do_not_meet_are_named(out, into, message):
    with pytest.raises(ValueError, match=message):
        ist.check(Net(out, into), softmax_cross_entropy, BATCH)


def test_what_fails_without_any_cut_is_not_blamed_on_the_neurons():
    batch = BATCH | {"x": jax.ShapeDtypeStruct((4, 5), jnp.float32)}
    with pytest.raises(TypeError, match="dot_general"):
        ist.check(Net("h", "h"), softmax_cross_entropy, batch)


@pytest.mark.parametrize("entry", [("h", "k"), ("h", 0), (3, 4), 5, ("h", 2.0)])
def test_an_axis_that_cannot_be_is_refused(entry):
    model = nnx.Linear(2, 12, rngs=nnx.Rngs(0), kernel_metadata={"neurons": (None, entry)})
    with pytest.raises(ValueError, match=r"neurons of kernel must be a name, None, or a tuple"):
        ist.neuron_axes(model)


def test_a_width_that_is_not_whole_is_refused():
    model = nnx.Linear(2, 12, rngs=nnx.Rngs(0), kernel_metadata={"neurons": (None, ("h", 5))})
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    with pytest.raises(ValueError, match=r"neurons of kernel: .* must be a multiple of 5, got 12"):
        ist.layer_widths(params, ist.neuron_axes(model))


@pytest.mark.parametrize(
    ("entry", "index"),
    [
        (("h", 2), lambda neuron: [2 * neuron, 2 * neuron + 1]),
        ((3, "h"), lambda neuron: [neuron, 4 + neuron, 8 + neuron]),
        ((3, "h", 2), lambda neuron: [8 * i + 2 * neuron + j for i in range(3) for j in range(2)]),
    ],
)
def test_axes_with_several_numbers_of_a_neuron_are_cut_and_pasted_as_numpy_says(entry, index):
    """Four neurons on two workers, along one axis, beside an axis of plain neurons."""
    numbers = 4 * len(index(0))
    full = np.arange(5.0 * numbers, dtype=np.float32).reshape(5, numbers)
    axes, parts = (
        ("k", entry),
        {
            "h": jnp.array([[2, 0], [1, 3]]),
            "k": jnp.array([[4, 1, 0], [2, 3, 5]]),  # padded
        },
    )
    pieces = np.asarray(ist.cut(jnp.asarray(full), axes, parts))
    expected = full.copy()
    for worker, piece in enumerate(pieces):
        rows = [row for row in np.asarray(parts["k"])[worker] if row < 5]
        columns = np.ravel([index(neuron) for neuron in np.asarray(parts["h"])[worker]])
        # In the order of the full axis: repeats first, then neurons, then numbers of each.
        columns = columns.reshape(2, -1) if entry[0] == "h" else columns.reshape(2, 3, -1)
        columns = columns.ravel() if entry[0] == "h" else columns.swapaxes(0, 1).ravel()
        np.testing.assert_array_equal(piece[: len(rows)], full[np.ix_(rows, columns)])
        expected[np.ix_(rows, columns)] += 100 * (1 + worker)
    steps = 100 * (1 + np.arange(2))[:, None, None]
    pasted = ist.paste(jnp.asarray(full), jnp.asarray(pieces + steps), axes, parts)
    np.testing.assert_array_equal(pasted, expected)
