"""Dense vectors with several labels each: matrices of 0 and 1, and lists in Parquet."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from jist.data import DataError
from jist.data.vectors import have_many_labels, many_labelled, read_files

N, D, L = 20, 3, 4
DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((N, D)).astype(np.float32)
HELD = DRAW.random((N, L)) < 0.4
HELD[0], HELD[1] = True, False  # all labels, and none
NAMES = np.array(["elm", "ash", "oak", "fir"])


def parquet(path, lists):
    pd.DataFrame({"x": list(X), "y": lists}).to_parquet(path)


def matrix(path, y, **more):
    np.savez(path, x=X, y=y, **more)


def beside(path):
    np.savez(path, x=X)
    scipy.sparse.save_npz(path.with_name("y.npz"), scipy.sparse.csr_matrix(HELD))


def loaded(path, labels=None):
    files = read_files(str(path), labels)
    assert have_many_labels(files)
    return [many_labelled(files, "own", split) for split in ("train", "test")]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("bool.npz", lambda path: matrix(path, HELD)),
        ("int.npz", lambda path: matrix(path, HELD.astype(np.int8))),
        ("float.npz", lambda path: matrix(path, HELD.astype(np.float32))),
        ("x.npz", beside),
        ("numbers.parquet", lambda path: parquet(path, [np.flatnonzero(row) for row in HELD])),
        ("names.parquet", lambda path: parquet(path, [NAMES[row] for row in HELD])),
    ],
)
def test_every_way_of_writing_says_the_same(name, write, tmp_path):
    write(tmp_path / name)
    train, test = loaded(tmp_path / name, f"{tmp_path}/y.npz" if name == "x.npz" else None)
    np.testing.assert_array_equal(np.sort([*train.numbers, *test.numbers]), np.arange(N))
    assert len(test) == N // 5
    assert (train.feature_count, train.label_count) == (D, L)
    assert train.label_names == (tuple(sorted(NAMES)) if name == "names.parquet" else ())
    columns = np.argsort(NAMES) if train.label_names else np.arange(L)
    for part in (train, test, train.rows(np.array([3, 1]))):
        np.testing.assert_array_equal(part.vectors.read(), X[part.numbers])
        found = np.zeros((len(part), L + 1), bool)
        found[np.arange(len(part))[:, None], part.labels[np.arange(len(part))]] = True  # -1: last
        np.testing.assert_array_equal(found[:, :L], HELD[part.numbers][:, columns])
    held = train.held_out(0.25, seed=0)
    assert held.sum() == len(train) // 4
    assert len(train.without_empty()) == HELD[train.numbers].any(axis=1).sum()
    if name != "names.parquet":
        matrix(tmp_path / "again.npz", HELD)
        assert train.describe() == loaded(tmp_path / "again.npz")[0].describe()


def wrong(row, column, value):
    y = HELD.astype(type(value))
    y[row, column] = value
    return y


def lists(row, value):
    return [value if i == row else [0, 1] for i in range(N)]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: matrix(path, wrong(3, 1, 2)), "row 3: label 1 is 2; .* holds 0 and 1"),
        (lambda path: matrix(path, wrong(3, 1, -1)), "row 3: label 1 is -1"),
        (lambda path: matrix(path, wrong(3, 1, np.nan)), "row 3: label 1 is nan"),
        (lambda path: matrix(path, HELD[:-1]), r"20 rows of features, and labels \[19, 4\]"),
        (lambda path: matrix(path, HELD[:, :1]), r"labels \[20, 1\] must be \[N\] classes, or"),
        (lambda path: matrix(path, HELD[:, :, None]), r"and labels \[20, 4, 1\]"),
        (lambda path: parquet(path, lists(4, [0, -2])), "row 4: labels must be at least 0, got"),
        (lambda path: parquet(path, lists(4, [2**40])), r"row 4: labels must be below 2\*\*31"),
        (lambda path: parquet(path, lists(4, [3, 1, 3])), "row 4: label 3 stands there twice"),
        (lambda path: parquet(path, lists(4, None)), "row 4: column 'y' lacks a value"),
        (lambda path: parquet(path, [["a"], ["b", ""]] * 10), "row 1: a label is empty"),
        (lambda path: parquet(path, [["a"], ["b", None]] * 10), "row 1: column 'y' lacks a value"),
        (lambda path: parquet(path, [[0.5]] * N), "whole numbers or text, column 'y' has double"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(write, message, tmp_path):
    path = tmp_path / ("own.parquet" if "parquet" in write.__code__.co_names else "own.npz")
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        loaded(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    matrix(tmp_path / "a.npz", HELD)
    matrix(tmp_path / "b.npz", HELD[:, :3])
    matrix(tmp_path / "c.npz", np.arange(N) % 2)
    parquet(tmp_path / "d.parquet", lists(0, [1]))
    for other, message in (
        ("b.npz", "a.npz has 4 labels, .*b.npz has 3"),
        ("c.npz", "must both hold several labels of a row, or neither"),
        ("d.parquet", "of one kind in all files, got a matrix in .*, lists of numbers in"),
    ):
        with pytest.raises(DataError, match=message):
            loaded(f"{tmp_path}/a.npz,{tmp_path}/{other}")
