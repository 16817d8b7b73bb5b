import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jist.data.order import WINDOW, steps_until, worker_order


@given(
    st.integers(1, 50), st.integers(1, 4), st.integers(1, 50), st.integers(0, 20), st.integers(0, 9)
)
def test_any_stretch_of_steps_is_a_piece_of_one_stream(examples, workers, batch, first, steps):
    batch = min(batch, examples)
    shape = {"examples": examples, "workers": workers, "batch_size": batch}
    whole = worker_order(3, **shape, first_step=0, steps=first + steps)
    piece = worker_order(3, **shape, first_step=first, steps=steps)
    np.testing.assert_array_equal(piece, whole[:, first:])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_every_pass_sees_every_example_once(examples, batch, passes):
    batch = min(batch, examples)
    steps = -(-passes * examples // batch)
    order = worker_order(
        0, examples=examples, workers=2, batch_size=batch, first_step=0, steps=steps
    )
    for worker in order.reshape(2, -1):
        for number in range(passes):
            one_pass = worker[number * examples : (number + 1) * examples]
            assert sorted(one_pass) == list(range(examples))


def test_workers_passes_and_seeds_have_orders_of_their_own():
    shape = {"examples": 100, "workers": 2, "batch_size": 100, "first_step": 0, "steps": 2}
    order = worker_order(0, **shape)
    other = worker_order(1, **shape)
    orders = [*order.reshape(4, 100), *other.reshape(4, 100)]
    assert len({tuple(row) for row in orders}) == 8


@given(st.integers(1, 1000), st.integers(1, 8), st.integers(1, 64), st.integers(1, 30))
def test_an_epoch_is_defined_by_the_examples_seen(examples, workers, batch, epoch):
    shape = {"examples": examples, "workers": workers, "batch_size": batch}
    seen = steps_until(epoch, **shape) * workers * batch
    assert epoch * examples <= seen < epoch * examples + workers * batch


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_larger_than_the_data_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 10 examples"):
        worker_order(0, examples=10, workers=1, batch_size=batch_size, first_step=0, steps=1)


@pytest.mark.parametrize("examples", [1, 7, 320, 1000])
def test_a_pass_over_blocks_sees_every_example_and_few_blocks_at_a_time(examples):
    block = 10
    order = worker_order(
        3, examples=examples, workers=1, batch_size=1, first_step=0, steps=examples, block=block
    ).ravel()
    np.testing.assert_array_equal(np.sort(order), np.arange(examples))
    window = WINDOW * block
    for first in range(0, examples - window + 1, window):
        assert len(np.unique(order[first : first + window] // block)) <= WINDOW + 1
    if examples == 1000:
        assert (np.diff(order) != 1).mean() > 0.9  # shuffled within blocks, too
        assert len(np.unique(order[:window] // (WINDOW * block))) > 1  # and between them
