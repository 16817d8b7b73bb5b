"""Sparse vectors of one's own: SciPy's matrices, with one class or with several labels each."""

import numpy as np
import pytest
import scipy.sparse

from jist.data import DataError
from jist.data.vectors import have_many_labels, load_vectors, many_labelled, read_files

N, D, L = 20, 6, 4
DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 3, (N, D)).astype(np.float32)
Y = np.arange(N) % 3
LABELS = DRAW.random((N, L)) < 0.4


def save(path, x):
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(x))
    return str(path)


def dense(rows):
    found = np.zeros((len(rows), D), np.float32)
    batch = rows[np.arange(len(rows))]
    np.add.at(found, (np.arange(len(rows))[:, None], batch["indices"]), batch["values"])
    return found


def test_sparse_vectors_are_those_of_a_dense_file(tmp_path):
    np.savez(tmp_path / "dense.npz", x=X, y=Y)
    np.save(tmp_path / "y.npy", Y)
    for split in ("train", "test"):
        wanted = load_vectors(tmp_path / "dense.npz", split)
        found = load_vectors(save(tmp_path / "x.npz", X), split)
        np.testing.assert_array_equal(dense(found.sparse()), wanted.read())
        np.testing.assert_array_equal(found.labels, wanted.labels)
        assert (found.keys, found.dim, wanted.sparse()) == (wanted.keys, D, None)
    digests = {load_vectors(tmp_path / "x.npz", "test").sha256}
    save(tmp_path / "x.npz", X + 1)
    assert load_vectors(tmp_path / "x.npz", "test").sha256 not in digests


@pytest.mark.parametrize("by", ["directory", "pair", "seed"])
def test_labels_of_many_lie_in_a_matrix_of_their_own(by, tmp_path):
    cut, paths = 12, {}
    for split, rows in {"train": slice(cut), "test": slice(cut, N)}.items():
        paths[split] = save(tmp_path / f"x_{split}.npz", X[rows])
        save(tmp_path / f"y_{split}.npz", LABELS[rows])
    if by == "seed":
        whole, labels = save(tmp_path / "a.npz", X), save(tmp_path / "b.npz", LABELS)
        files = read_files(whole, labels)
    else:
        files = read_files(str(tmp_path) if by == "directory" else ",".join(paths.values()), None)
    assert have_many_labels(files)
    train, test = (many_labelled(files, "own", split) for split in ("train", "test"))
    assert (train.feature_count, train.label_count) == (D, L)
    numbers = [train.numbers, test.numbers if by == "seed" else test.numbers + cut]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(N))
    for part, rows in zip((train, test), numbers, strict=True):
        np.testing.assert_array_equal(dense(part.features), X[rows])
        taken = part.labels[np.arange(len(part))]
        for row, number in zip(taken, rows, strict=True):
            assert [label for label in row if label >= 0] == np.flatnonzero(LABELS[number]).tolist()
    assert len(train.without_empty()) == LABELS[numbers[0]].any(axis=1).sum()


def test_a_stored_zero_is_no_label_and_one_stored_twice_is_one(tmp_path):
    rows, columns, data = [0, 0, 0, 1], [2, 2, 1, 0], [1, 1, 0, 5]
    matrix = scipy.sparse.csr_matrix((data, columns, [0, 3, 4]), shape=(2, L))
    assert len(rows) == matrix.nnz
    scipy.sparse.save_npz(tmp_path / "y.npz", matrix)
    files = read_files(save(tmp_path / "x.npz", X[:2]), None)
    assert files[0].label.labels()[np.arange(2)].tolist() == [[2], [0]]


def test_what_does_not_fit_is_told(tmp_path):
    sparse = save(tmp_path / "sparse.npz", X)
    labels = save(tmp_path / "labels.npz", LABELS[:-1])
    np.savez(tmp_path / "dense.npz", x=X, y=Y)
    scipy.sparse.save_npz(tmp_path / "csc.npz", scipy.sparse.csc_matrix(X))
    whole = save(tmp_path / "whole.npz", LABELS)
    for path, given, message in (
        (sparse, None, "sparse.npz has no labels, called y, .* --labels"),
        (sparse, labels, r"there are 20 rows of features, and labels \[19, 4\]"),
        (f"{sparse},{tmp_path}/dense.npz", whole, "must both hold sparse features, or neither"),
        (f"{tmp_path}/csc.npz", None, "must hold a matrix of format 'csr', got 'csc'"),
        (f"{tmp_path}/dense.npz", whole, "one class of each row is needed here"),
    ):
        with pytest.raises(DataError, match=message):
            load_vectors(path, "train", labels=given)
