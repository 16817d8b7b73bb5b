import numpy as np
import pytest

from jist.data.order import worker_order
from jist.data.pools import sharded_pools

LABELS = np.repeat(np.arange(10), 100)


@pytest.mark.parametrize("alpha", [None, 0.3, 100.0])
def test_every_example_is_in_one_pool(alpha):
    pools = sharded_pools(LABELS, 4, seed=0, alpha=alpha)
    assert sorted(np.concatenate(pools)) == list(range(1000))
    again = sharded_pools(LABELS, 4, seed=0, alpha=alpha)
    assert all(np.array_equal(a, b) for a, b in zip(pools, again, strict=True))


def test_pools_without_alpha_are_of_one_size():
    assert {len(pool) for pool in sharded_pools(LABELS, 3, seed=0)} == {333, 334}


def skew(alpha):
    """Mean distance of a worker's class shares from equal ones, in total variation."""
    pools = sharded_pools(LABELS, 4, seed=1, alpha=alpha)
    shares = [np.bincount(LABELS[pool], minlength=10) / len(pool) for pool in pools]
    return np.mean([np.abs(share - 0.1).sum() / 2 for share in shares])


def test_a_smaller_alpha_skews_the_classes_more():
    assert skew(0.1) > 0.4 > skew(1.0) > skew(1000.0)
    assert skew(1000.0) < 0.05


def test_workers_draw_from_their_pools_only_and_from_all_of_them():
    pools = sharded_pools(LABELS, 4, seed=0, alpha=0.3)
    steps = -(-max(map(len, pools)) // 8)
    order = worker_order(
        0, examples=1000, workers=4, batch_size=8, first_step=0, steps=steps, pools=pools
    )
    for rows, pool in zip(order, pools, strict=True):
        assert set(rows.ravel()) == set(pool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 1001}, "workers must be between 1 and the 1000 examples"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"workers": 200, "alpha": 0.001}, "without an example"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sharded_pools(LABELS, **{"workers": 4, "seed": 0, **arguments})


def test_a_batch_larger_than_a_pool_is_refused():
    pools = [np.arange(5), np.arange(5, 100)]
    with pytest.raises(ValueError, match="between 1 and the 5 examples of worker 0, got 6"):
        worker_order(0, examples=100, workers=2, batch_size=6, first_step=0, steps=1, pools=pools)
