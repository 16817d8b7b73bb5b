"""The time model against sums by hand and against its own limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jist import costs, durations

WIDTHS = (40, 64, 10)


def test_a_round_computes_then_transmits_then_waits():
    # 10 steps of 20 ms; 1 MB at 8 Mbit/s takes a second; three messages of 5 ms.
    found = durations.round_seconds(0.02, 10, 1e6, 8e6, messages=3, delay=0.005)
    assert found == pytest.approx(0.2 + 1.0 + 0.015)


def test_a_link_that_carries_nothing_is_refused():
    with pytest.raises(ValueError, match="rate must be positive, got 0"):
        durations.round_seconds(0.02, 10, 1e6, 0.0)


def test_only_data_parallel_training_waits_in_every_step():
    assert durations.messages_of("data_parallel", 4, 50) == 50 * 6
    assert durations.messages_of("local_sgd", 4, 50) == 6
    assert durations.messages_of("diloco", 4, 50) == 6
    assert durations.messages_of("ist", 4, 50) == 2
    assert durations.messages_of("ensemble", 4, 50) == 0
    with pytest.raises(ValueError, match="strategy must be one of"):
        durations.messages_of("gossip", 4, 50)


@given(st.floats(0, 1e-2), st.floats(1e-13, 1e-10))
def test_the_line_of_steps_is_found_again(at_zero, per_flop):
    flops = [1e9, 2e9, 5e9]
    found = durations.step_line(flops, [at_zero + per_flop * f for f in flops])
    assert found == pytest.approx((at_zero, per_flop), rel=1e-4, abs=1e-9)


def test_a_line_never_has_negative_seconds():
    at_zero, per_flop = durations.step_line([1e9, 2e9], [1.0, 3.0])
    assert (at_zero, per_flop) == (0.0, pytest.approx(2.0 / 1.5e9))
    assert durations.step_line([1e9, 1e9], [1.0, 3.0]) == (0.0, pytest.approx(2e-9))


def speed_up(rate, **options):
    how = {"at_zero": 1e-4, "per_flop": 1e-11} | options
    return durations.ist_speed_up(WIDTHS, 4, 50, 16, rate, **how)


def test_on_a_slow_link_the_bytes_decide_and_on_a_fast_one_the_operations():
    whole = costs.data_parallel_bytes_paper(WIDTHS)
    assert speed_up(1e-3) == pytest.approx(whole / costs.ist_bytes_paper(WIDTHS, 4, 50))
    # One hidden layer: a worker computes a quarter of everything.
    assert speed_up(math.inf, at_zero=0.0) == pytest.approx(4)
    assert speed_up(math.inf, per_flop=0.0) == pytest.approx(1)


@given(st.floats(1e6, 1e11), st.floats(1e6, 1e11))
def test_ist_gains_more_the_slower_the_link(one, other):
    slow, fast = sorted((one, other))
    assert speed_up(slow) >= speed_up(fast) * (1 - 1e-9)
