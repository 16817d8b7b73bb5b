import numpy as np
import pytest

from jist import store
from jist.data import OnDisk

TABLE = np.random.default_rng(0).standard_normal((70, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=["mapped", "stored"])
def on_disk(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("table")
    rows = np.flatnonzero(np.arange(70) % 7)
    if request.param == "mapped":
        np.save(path / "x.npy", TABLE)
        return OnDisk(np.load(path / "x.npy", mmap_mode="r"), rows)
    store.open_group(path, {}, holds="features")
    array = store.create_array(path, "cls", TABLE.dtype, TABLE.shape, chunk=16)
    store.write(array, TABLE)
    return OnDisk(store.StoredRows(path, "cls"), rows)


def test_rows_are_those_of_the_array_in_memory(on_disk):
    whole = TABLE[np.flatnonzero(np.arange(70) % 7)]
    assert (on_disk.shape, len(on_disk), on_disk.nbytes) == (whole.shape, len(whole), whole.nbytes)
    mask = np.arange(len(whole)) % 2 == 0
    for which in (slice(5, 30), slice(0, 0), np.array([9, 2, 2, 59]), mask):
        np.testing.assert_array_equal(on_disk[which], whole[which])
    np.testing.assert_array_equal(on_disk.some(mask)[1:4], whole[mask][1:4])


def test_rows_are_asked_for_ahead_where_many_of_a_part_are_wanted(tmp_path):
    table = np.arange(6000, dtype=np.float32).reshape(-1, 1) * np.ones(3, np.float32)
    np.save(tmp_path / "x.npy", table)
    mapped = OnDisk(np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(6000))
    # Of rows 0 to 1,023 one is wanted, of 1,024 to 3,071 and of those from 5,120 on a lot.
    which = np.concatenate([[7], np.arange(1024, 3072, 9), np.arange(5990, 5120, -9)])
    mapped.announce(which)
    np.testing.assert_array_equal(mapped[which], table[which])
    np.save(tmp_path / "half.npy", table.astype(np.float16))
    half = OnDisk(np.load(tmp_path / "half.npy", mmap_mode="r"), np.arange(6000))
    np.testing.assert_array_equal(half[which], table.astype(np.float16)[which])
    assert half[which].dtype == np.float32


def test_a_chunk_that_is_gone_is_an_error(tmp_path):
    store.open_group(tmp_path, {}, holds="features")
    array = store.create_array(tmp_path, "cls", TABLE.dtype, TABLE.shape, chunk=16)
    store.write(array, TABLE)
    (tmp_path / "cls" / "c" / "1" / "0").unlink()
    with pytest.raises(store.StoreError, match="rows 16 to 31 are missing"):
        store.StoredRows(tmp_path, "cls")
