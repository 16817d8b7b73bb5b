import math

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jist.ist import cut, partition, paste
from jist.ist.neurons import layer_of

# No layer, single neurons, heads, fused projections of heads, flattened channels.
AXES = [None, "a", "b", ("a", 2), (2, "b", 3), (2, "a")]
NAMES = st.lists(st.sampled_from(AXES), max_size=3)


def along(entry, rows, width):
    """Where the neurons `rows` stand along an axis of an entry, found one by one."""
    entry = entry if isinstance(entry, tuple) else (entry,)
    at = next(i for i, factor in enumerate(entry) if isinstance(factor, str))
    before, after = math.prod(entry[:at]), math.prod(entry[at + 1 :])
    return [
        (copy * width + row) * after + number if row < width else -1
        for copy in range(before)
        for row in rows
        for number in range(after)
    ]


def tree(widths, workers, leaves, seed):
    """A tree of arrays, its axes and a partition."""
    workers = min(workers, *widths)
    widths = dict(zip("ab", widths, strict=True))
    axes = {f"leaf{i}": tuple(names) for i, names in enumerate(leaves)}
    generator = np.random.default_rng(seed)
    params = {
        name: jnp.asarray(
            generator.normal(size=[3 if n is None else length(n, widths) for n in names]),
            jnp.float32,
        )
        for name, names in axes.items()
    }
    return params, axes, partition(jax.random.key(seed), widths, workers)


def length(entry, widths):
    entry = entry if isinstance(entry, tuple) else (entry,)
    return math.prod(widths.get(factor, factor) for factor in entry)


def for_any_tree(test):
    """Any two widths, numbers of workers, ranks of arrays and orders of their axes."""
    widths = st.tuples(st.integers(2, 9), st.integers(2, 9))
    leaves = st.lists(NAMES, min_size=1, max_size=3)
    given_trees = given(widths, st.integers(1, 9), leaves, st.integers(0, 1000))
    return settings(deadline=None, max_examples=8)(given_trees(test))


@for_any_tree
def test_paste_undoes_cut_bit_by_bit(widths, workers, leaves, seed):
    params, axes, parts = tree(widths, workers, leaves, seed)
    # One program for each example, in place of one for each operation.
    there_and_back = jax.jit(lambda tree, parts: paste(tree, cut(tree, axes, parts), axes, parts))
    pasted = there_and_back(params, parts)
    for name, array in params.items():
        if any(axes[name]):
            np.testing.assert_array_equal(pasted[name], array)
        else:
            np.testing.assert_allclose(pasted[name], array, rtol=1e-6)


@for_any_tree
def test_a_subnet_is_the_outer_product_of_its_neurons(widths, workers, leaves, seed):
    params, axes, parts = tree(widths, workers, leaves, seed)
    subnets = jax.jit(lambda params, parts: cut(params, axes, parts))(params, parts)
    for name, array in params.items():
        for worker in range(len(parts["a"])):
            expected = np.asarray(array)
            for axis, layer in enumerate(axes[name]):
                if layer is not None:
                    own = layer_of(layer)
                    padding = np.zeros_like(expected.take([0], axis))
                    padded = np.concatenate([expected, padding], axis)
                    index = along(layer, np.asarray(parts[own][worker]), widths["ab".index(own)])
                    expected = padded.take(index, axis)
            np.testing.assert_array_equal(subnets[name][worker], expected)


def test_paste_writes_trained_pieces_only_between_neurons_of_one_worker():
    params = {"w": jnp.zeros((4, 4)), "shared": jnp.zeros(2)}
    axes = {"w": ("a", "b"), "shared": (None,)}
    parts = {"a": jnp.asarray([[0, 1], [2, 3]]), "b": jnp.asarray([[3, 0], [1, 2]])}
    subnets = {"w": jnp.stack([jnp.full((2, 2), 1.0), jnp.full((2, 2), 2.0)])}
    subnets["shared"] = jnp.asarray([[1.0, 2.0], [3.0, 6.0]])
    pasted = paste(params, subnets, axes, parts)
    expected = [[1, 0, 0, 1], [1, 0, 0, 1], [0, 2, 2, 0], [0, 2, 2, 0]]
    np.testing.assert_array_equal(pasted["w"], expected)
    np.testing.assert_array_equal(pasted["shared"], [2, 4])


def test_counters_keep_their_type():
    params, axes = {"count": jnp.asarray(16_777_217)}, {"count": ()}
    parts = {"a": jnp.asarray([[0], [1]])}
    pasted = paste(params, cut(params, axes, parts), axes, parts)
    assert pasted["count"].dtype == jnp.int32
    assert int(pasted["count"]) == 16_777_217
