"""What encoders are shown in the place of clouds."""

import types

import numpy as np
import pytest

from experiments import clouds


def test_what_is_visible_stays_and_what_is_hidden_has_no_influence():
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    hidden = generator.random((3, 8, 8)) < 0.4
    other[~hidden] = one[~hidden]
    encoder = types.SimpleNamespace(preprocessing=types.SimpleNamespace(mean=(0.2, 0.4, 0.6)))
    for method in ("painted", "mean", "nearest"):
        found = clouds.filled(one, hidden, method, encoder)
        np.testing.assert_array_equal(found[~hidden], one[~hidden])
        np.testing.assert_array_equal(found, clouds.filled(other, hidden, method, encoder))
    np.testing.assert_array_equal(clouds.filled(one, hidden, "clear", encoder), one)
    assert (clouds.filled(one, hidden, "mean", encoder)[hidden] == (51, 102, 153)).all()


def test_the_nearest_colour_is_that_of_a_pixel_at_the_least_distance():
    hidden = np.random.default_rng(1).random((9, 7)) < 0.7
    places = np.stack(np.indices(hidden.shape), axis=-1).astype(np.uint8)  # [row, column]
    found = clouds.nearest(places, hidden).astype(int)
    there = np.argwhere(~hidden)
    for place in np.argwhere(hidden):
        least = np.square(there - place).sum(axis=1).min()
        assert np.square(found[tuple(place)] - place).sum() == least


def test_means_over_the_seeds():
    rows = [
        {"cover": 0.1, "method": "mean", "seed": seed, "test_accuracy": accuracy}
        for seed, accuracy in ((0, 0.4), (1, 0.6))
    ]
    (row,) = clouds.summary(rows)
    assert (row["mean"], row["deviation"]) == (pytest.approx(0.5), pytest.approx(0.1))
