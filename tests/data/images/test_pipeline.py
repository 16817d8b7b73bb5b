import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jist.data import Dataset, UnreadableImageError, batches, resize
from jist.models import Preprocessing

COUNT = 150


class Numbers(Dataset):
    """Example i is an image of colour (i, 2i, 0); every seventh is unreadable where asked."""

    def open(self, index):
        if self.name == "damaged" and index % 7 == 3:
            raise UnreadableImageError(f"cannot read image {self.locate(index)}")
        return Image.new("RGB", (3, 5), (index, 2 * index % 256, 0))


def numbers(name="numbers"):
    return Numbers(
        name=name,
        split="train",
        class_names=("even", "odd"),
        keys=tuple(f"number/{n}" for n in range(COUNT)),
        labels=np.arange(COUNT, dtype=np.int32) % 2,
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, COUNT + 10), st.lists(st.integers(0, COUNT - 1)))
def test_rows_come_in_the_order_asked_for_in_full_batches(batch_size, rows):
    dataset = numbers()
    found = list(batches(dataset, image_size=2, batch_size=batch_size, rows=rows))
    assert all(len(batch.labels) == batch_size for batch in found[:-1])
    assert sum(len(batch.labels) for batch in found) == len(rows)
    for batch, first in zip(found, itertools.count(0, batch_size), strict=False):
        wanted = rows[first : first + batch_size]
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], wanted)
        np.testing.assert_array_equal(batch.labels, dataset.labels[wanted])
        np.testing.assert_array_equal(batch.example_ids, dataset.example_ids[wanted])
        assert batch.readable.all()
        assert batch.images.shape == (len(wanted), 2, 2, 3)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, COUNT))
def test_batches_begin_anew_with_every_chunk(batch_size, chunk, count):
    rows = range(count)
    options = {"image_size": 2, "batch_size": batch_size}
    found = batches(numbers(), rows=rows, chunk=chunk, **options)
    starts = range(0, count, chunk)
    expected = [b for s in starts for b in batches(numbers(), rows=rows[s : s + chunk], **options)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.example_ids, other.example_ids)
        np.testing.assert_array_equal(one.images, other.images)


def test_by_default_all_rows_come_in_their_order():
    images = [batch.images[:, 0, 0, 0] for batch in batches(numbers(), image_size=2, batch_size=64)]
    np.testing.assert_array_equal(np.concatenate(images), np.arange(COUNT))


def test_images_are_resized():
    dataset = numbers()
    nearest = Preprocessing(interpolation="nearest")
    batch = next(batches(dataset, image_size=4, preprocessing=nearest, batch_size=8))
    np.testing.assert_array_equal(batch.images[5], resize(dataset.open(5), 4, nearest))
    assert batch.images.dtype == np.uint8
    assert batch.labels.dtype == np.int32
    assert batch.example_ids.dtype == np.uint32


def test_an_unreadable_image_stops_with_its_name():
    images = batches(numbers("damaged"), image_size=2, batch_size=50)
    with pytest.raises(UnreadableImageError, match=r"cannot read image number/3$"):
        list(images)


def test_or_is_marked():
    dataset = numbers("damaged")
    found = list(batches(dataset, image_size=2, batch_size=40, skip_unreadable=True))
    readable = np.concatenate([batch.readable for batch in found])
    damaged = np.arange(COUNT) % 7 == 3
    np.testing.assert_array_equal(readable, ~damaged)
    labels = np.concatenate([batch.labels for batch in found])
    np.testing.assert_array_equal(labels, np.where(damaged, -1, dataset.labels))
    images = np.concatenate([batch.images for batch in found])
    assert not images[damaged].any()
    # Its id stays: the masks of all others do not depend on what can be read.
    ids = np.concatenate([batch.example_ids for batch in found])
    np.testing.assert_array_equal(ids, dataset.example_ids)


def test_no_thread_outlives_the_iteration():
    before = set(threading.enumerate())
    images = batches(numbers(), image_size=2, batch_size=10)
    next(images)
    started = [t for t in threading.enumerate() if t not in before]
    images.close()
    for thread in started:
        thread.join(timeout=5)
    assert started
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1 pixel, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1 row, got 0"),
        ({"rows": [3, -1]}, "rows from -1 to 3"),
        ({"rows": range(COUNT + 1)}, f"between 0 and {COUNT - 1}, got rows from 0 to {COUNT}"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        batches(numbers(), **({"image_size": 2, "batch_size": 4} | options))
