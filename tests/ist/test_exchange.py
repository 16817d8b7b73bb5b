import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jist.ist import partition
from jist.ist.exchange import check_owners, slots_per_owner, sort_by_owner


@pytest.mark.parametrize(
    ("width", "workers", "devices"), [(32, 4, 4), (32, 4, 2), (40, 8, 4), (24, 4, 1), (60, 6, 3)]
)
def test_seats_are_sorted_by_home_and_lose_no_neuron(width, workers, devices):
    parts = partition(jax.random.key(1), {"h": width}, workers, "stratified")
    slotted = np.asarray(sort_by_owner(parts, {"h": width}, devices)["h"])
    slots = slots_per_owner(width, workers, devices)
    assert slotted.shape == (workers, devices * slots)
    for row, assigned in zip(slotted, np.asarray(parts["h"]), strict=True):
        assert sorted(row[row < width]) == sorted(assigned[assigned < width])
        for owner, stretch in enumerate(row.reshape(devices, slots)):
            held = stretch[stretch < width]
            np.testing.assert_array_equal(held // (width // devices), owner)


def test_nothing_is_padded_where_the_square_of_the_workers_divides_the_width():
    parts = partition(jax.random.key(0), {"h": 64}, 4, "stratified")
    slotted = sort_by_owner(parts, {"h": 64}, 4)["h"]
    assert slotted.shape == (4, 16)
    assert int(jnp.max(slotted)) < 64


def test_widths_that_the_devices_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="the 4 devices divide, got 10 neurons of 'h'"):
        check_owners({"h": 10}, 4)
