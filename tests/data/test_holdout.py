import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jist.data import DataError
from jist.data.holdout import held_out

counts = st.lists(st.integers(2, 30), min_size=1, max_size=4)


def examples(counts):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return [f"{label}/{row}" for row, label in enumerate(labels)], labels


@settings(deadline=None)
@given(counts, st.floats(0.01, 0.99), st.integers(0, 5))
def test_every_class_gives_the_same_share(counts, share, seed):
    keys, labels = examples(counts)
    held = held_out(keys, labels, [str(n) for n in range(len(counts))], share=share, seed=seed)
    for label, count in enumerate(counts):
        members = held[labels == label]
        assert 0 < members.sum() < count
        assert abs(members.sum() - share * count) <= 1


@settings(deadline=None)
@given(counts, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_plays_no_part(counts, random):
    keys, labels = examples(counts)
    names = [str(n) for n in range(len(counts))]
    held = held_out(keys, labels, names, share=0.3, seed=1)
    order = list(range(len(keys)))
    random.shuffle(order)
    again = held_out([keys[row] for row in order], labels[order], names, share=0.3, seed=1)
    np.testing.assert_array_equal(again, held[order])


def test_the_seed_decides():
    keys, labels = examples([500])
    first, second = (held_out(keys, labels, ["a"], share=0.5, seed=seed) for seed in (0, 1))
    # Independent halves agree on half of the examples; 5 standard deviations are 56.
    assert abs((first == second).sum() - 250) < 56


def test_adding_examples_moves_few_across():
    keys, labels = examples([1000])
    held = held_out(keys[:990], labels[:990], ["a"], share=0.2, seed=0)
    more = held_out(keys, labels, ["a"], share=0.2, seed=0)[:990]
    assert (held != more).sum() <= 10


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.5])
def test_a_share_outside_the_open_interval_is_refused(share):
    keys, labels = examples([3])
    with pytest.raises(ValueError, match=r"share .--test-share. must lie in \(0, 1\), got"):
        held_out(keys, labels, ["a"], share=share, seed=0)


def test_a_class_of_one_is_named():
    keys, labels = examples([3, 1])
    with pytest.raises(DataError, match=r"'rare' has 1 image; .*to validate on, .* at least 2"):
        held_out(keys, labels, ["common", "rare"], share=0.2, seed=0)
