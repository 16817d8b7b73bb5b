import hashlib
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jist.data import example_id, load_dataset


def test_example_ids_are_pinned():
    # Masks depend on them: changing the hash would change every fixed mask.
    wanted = int.from_bytes(hashlib.blake2b(b"digits/17", digest_size=4).digest(), "little")
    assert example_id("digits/17") == wanted == 1323613643
    assert example_id("caf\udce9") != example_id("cafe")


def test_unknown_names_and_splits_are_refused():
    with pytest.raises(
        ValueError, match="digits, cifar10, .* masked:PATH or images:PATH, got 'imagenet'"
    ):
        load_dataset("imagenet", "train")
    with pytest.raises(ValueError, match=r"split must be one of .* got 'val'"):
        load_dataset("digits", "val")


def test_digits_are_all_there_once():
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert sorted(train.keys + test.keys) == sorted(f"digits/{n}" for n in range(1797))
    assert len(test) == pytest.approx(0.2 * 1797, abs=5)
    assert train.class_names == tuple("0123456789")


def test_digits_are_scikit_learns():
    bundled: Any = load_digits()
    test = load_dataset("digits", "test", seed=3)
    for index in (0, 100, len(test) - 1):
        row = int(test.keys[index].removeprefix("digits/"))
        pixels = np.asarray(test.open(index))
        assert test.labels[index] == bundled.target[row]
        for channel in range(3):
            np.testing.assert_allclose(
                pixels[..., channel] / 255, bundled.images[row] / 16, atol=2e-3
            )


def test_the_seed_decides_the_split_of_the_digits():
    assert load_dataset("digits", "test").keys == load_dataset("digits", "test").keys
    assert load_dataset("digits", "test").keys != load_dataset("digits", "test", seed=1).keys
    assert len(load_dataset("digits", "test", test_share=0.5)) == pytest.approx(1797 / 2, abs=5)
