import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jist.ist import partition


@settings(deadline=None, max_examples=10)
@given(st.data(), st.sampled_from(["uniform", "stratified"]), st.integers(0, 2**31 - 1))
def test_every_neuron_is_dealt_exactly_once(data, scheme, seed):
    width = data.draw(st.integers(1, 60))
    workers = data.draw(st.integers(1, width))
    # As one program for each shape, in place of one for each operation.
    draw = jax.jit(lambda key: partition(key, {"h": width}, workers, scheme)["h"])
    parts = np.asarray(draw(jax.random.key(seed)))
    assert parts.shape == (workers, -(-width // workers))
    assigned = parts[parts < width]
    assert sorted(assigned) == list(range(width))
    held = (parts < width).sum(axis=1)
    assert held.max() - held.min() <= 1
    # Padding is the index N, at the end of a row.
    assert all((row[count:] == width).all() for row, count in zip(parts, held, strict=True))


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from(["uniform", "stratified"]))
def test_neurons_that_may_be_absent_keep_their_order_and_may_be_fewer_than_workers(
    width, workers, scheme
):
    draw = jax.jit(lambda key: partition(key, {"h?": width}, workers, scheme)["h?"])
    parts = np.asarray(draw(jax.random.key(0)))
    assert parts.shape == (workers, -(-width // workers))
    assert sorted(parts[parts < width]) == list(range(width))
    assert (np.sort(parts, axis=1) == parts).all()


def test_which_worker_has_none_is_drawn():
    parts = jax.vmap(lambda key: partition(key, {"h?": 3}, 4)["h?"])(
        jax.random.split(jax.random.key(0), 2000)
    )
    without = (np.asarray(parts)[:, :, 0] == 3).mean(axis=0)
    assert np.abs(without - 1 / 4).max() < 5 * np.sqrt(3 / 16 / 2000)


def owners(width, workers, scheme, draws=2000):
    """[draws, width]: which worker has each neuron."""
    keys = jax.random.split(jax.random.key(0), draws)
    parts = np.asarray(
        jax.vmap(lambda key: partition(key, {"h": width}, workers, scheme)["h"])(keys)
    )
    owner = np.empty((draws, width + 1), int)
    rows = np.broadcast_to(np.arange(workers)[:, None], parts.shape[1:])
    for draw in range(draws):
        owner[draw, parts[draw]] = rows
    return owner[:, :width]


@pytest.mark.parametrize("scheme", ["uniform", "stratified"])
@pytest.mark.parametrize(("width", "workers"), [(8, 4), (9, 4), (7, 3)])
def test_every_worker_gets_every_neuron_equally_often(width, workers, scheme):
    owner = owners(width, workers, scheme)
    counts = np.stack([(owner == worker).sum(axis=0) for worker in range(workers)])
    expected = len(owner) / workers
    chi_square = ((counts - expected) ** 2 / expected).sum(axis=0)
    # The 1e-6 quantile of chi-square with 3 (2) degrees of freedom is 30.7 (27.6).
    assert chi_square.max() < 31


def test_layers_of_one_width_are_dealt_independently():
    keys = jax.random.split(jax.random.key(0), 2000)
    parts = jax.vmap(lambda key: partition(key, {"a": 4, "b": 4}, 2))(keys)
    same = np.mean(
        [
            set(a[0].tolist()) == set(b[0].tolist())
            for a, b in zip(np.asarray(parts["a"]), np.asarray(parts["b"]), strict=True)
        ]
    )
    # Six shares of two neurons out of four: equal by chance once in six.
    assert abs(same - 1 / 6) < 5 * np.sqrt(1 / 6 * 5 / 6 / 2000)


def test_stratified_stretches_give_every_worker_the_same_share():
    parts = np.asarray(partition(jax.random.key(3), {"h": 32}, 4, "stratified")["h"])
    for worker in range(4):
        stretches = parts[worker] // 8
        np.testing.assert_array_equal(np.bincount(stretches, minlength=4), [2, 2, 2, 2])


def test_a_layers_deal_does_not_depend_on_the_other_layers():
    key = jax.random.key(0)
    alone = partition(key, {"b": 10}, 2)["b"]
    np.testing.assert_array_equal(partition(key, {"a": 7, "b": 10}, 2)["b"], alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 5}, "workers must be between 1 and the 4 neurons of 'h', got 5"),
        ({"workers": 0}, "workers must be between 1 and the 4 neurons of 'h', got 0"),
        ({"scheme": "random"}, "scheme must be one of"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        partition(jax.random.key(0), {"h": 4}, **{"workers": 2, **arguments})


@settings(deadline=None, max_examples=10)
@given(st.integers(10, 60), st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 99))
def test_shares_deal_every_neuron_once_in_their_proportions(width, weights, seed):
    shares = [w / sum(weights) for w in weights]
    draw = jax.jit(lambda key: partition(key, {"h": width}, len(shares), shares=shares)["h"])
    parts = np.asarray(draw(jax.random.key(seed)))
    assert sorted(parts[parts < width]) == list(range(width))
    held = (parts < width).sum(axis=1)
    assert abs(held - np.asarray(shares) * width).max() <= 1


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.5, 0.4), "shares must be 2 positive numbers that sum to 1"),
        ((0.5, 0.3, 0.2), "shares must be 2 positive numbers that sum to 1"),
        ((0.999, 0.001), "shares must leave every worker a neuron"),
    ],
)
def test_wrong_shares_are_named(shares, message):
    with pytest.raises(ValueError, match=message):
        partition(jax.random.key(0), {"h": 10}, 2, shares=shares)
    with pytest.raises(ValueError, match="shares go with scheme='uniform'"):
        partition(jax.random.key(0), {"h": 10}, 2, "stratified", shares=(0.5, 0.5))


@pytest.mark.parametrize(("width", "workers"), [(12, 4), (13, 4)])
def test_rolling_windows_move_on_and_every_pair_of_neurons_meets(width, workers):
    widths = {"a": width, "b": width}
    key, met = jax.random.key(0), np.zeros((width, width), int)
    rounds = 3 * workers
    for number in range(rounds):
        parts = partition(key, widths, workers, "rolling", round_number=number)
        rows = {layer: np.asarray(of_layer) for layer, of_layer in parts.items()}
        for layer, of_layer in rows.items():
            assert sorted(of_layer[of_layer < width]) == list(range(width)), layer
        for a, b in zip(rows["a"], rows["b"], strict=True):
            met[np.ix_(a[a < width], b[b < width])] += 1
    assert met.min() >= 1
    assert met.mean() == pytest.approx(rounds / workers, rel=0.1)


def test_every_neuron_is_on_as_many_workers_as_there_are_replicas():
    for scheme in ("uniform", "stratified", "rolling"):
        rows = np.asarray(partition(jax.random.key(0), {"h": 10}, 4, scheme, replicas=2)["h"])
        assert rows.shape == (4, 6)
        assert (np.bincount(rows[rows < 10]) == 2).all()
        assert all(len(set(row[row < 10])) == (row < 10).sum() for row in rows)
