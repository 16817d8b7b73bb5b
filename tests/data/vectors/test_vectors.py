"""Vectors of one's own, written as a user would, in every format and with every kind of split."""

import numpy as np
import pandas as pd
import pytest

from jist import store
from jist.data import DataError
from jist.data.vectors import load_vectors

N, D = 40, 3
X = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
Y = np.arange(N) % 4
WORDS = np.array(["birch", "ash", "oak", "elm"])


def write(path, x=X, y=Y, **more):
    if path.suffix == ".npz":
        np.savez(path, x=x, y=y, **more)
    elif path.suffix == ".npy":
        np.save(path, x)
        np.save(path.parent / path.name.replace("x", "y"), y)
    elif path.suffix == ".parquet":
        pd.DataFrame({"x": list(x), "y": y, **more}).to_parquet(path)
    else:
        store.open_group(path, {}, holds="features")
        for name, values in (("cls", x), ("label", y)):
            array = store.create_array(path, name, values.dtype, values.shape, chunk=16)
            store.write(array, values)
    return path


def both(path, **options):
    return [load_vectors(path, split, **options) for split in ("train", "test")]


@pytest.mark.parametrize("name", ["a.npz", "x.npy", "a.parquet", "store"])
def test_every_format_gives_the_same_vectors_and_split(name, tmp_path):
    train, test = both(write(tmp_path / name))
    rows = np.sort(np.concatenate([train.rows, test.rows]))
    np.testing.assert_array_equal(rows, np.arange(N))
    assert np.bincount(test.labels).tolist() == [2, 2, 2, 2]  # a fifth of every class
    for part in (train, test):
        np.testing.assert_array_equal(part.read(), X[part.rows])
        np.testing.assert_array_equal(part.labels, Y[part.rows])
    reference = load_vectors(write(tmp_path / "reference.npz"), "test")
    np.testing.assert_array_equal(test.rows, reference.rows)
    assert test.class_names == ("0", "1", "2", "3")


def test_columns_of_numbers_are_features(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(kind=WORDS[Y], id=np.arange(N))
    frame.to_parquet(tmp_path / "table.parquet")
    train, _ = both(tmp_path / "table.parquet", labels="kind")
    np.testing.assert_array_equal(train.read(), X[train.rows])
    assert train.class_names == ("ash", "birch", "elm", "oak")
    assert [train.class_names[label] for label in train.labels] == WORDS[Y[train.rows]].tolist()


def test_the_split_is_by_column_by_file_or_by_the_names_of_arrays(tmp_path):
    split = np.where(np.arange(N) < 30, "train", "test")
    parts = {"train": slice(0, 30), "test": slice(30, N)}
    by_column = write(tmp_path / "column.npz", split=split)
    for name, rows in parts.items():
        (tmp_path / "directory").mkdir(exist_ok=True)
        write(tmp_path / "directory" / f"{name}.npz", X[rows], Y[rows])
    both_files = f"{tmp_path}/directory/train.npz,{tmp_path}/directory/test.npz"
    arrays = {f"x_{name}": X[rows] for name, rows in parts.items()}
    np.savez(tmp_path / "keras.npz", **arrays, **{f"y_{n}": Y[rows] for n, rows in parts.items()})
    for path in (by_column, tmp_path / "directory", both_files, tmp_path / "keras.npz"):
        for part, rows in zip(both(path), parts.values(), strict=True):
            np.testing.assert_array_equal(part.read(), X[rows])
            np.testing.assert_array_equal(part.labels, Y[rows])
        with pytest.raises(ValueError, match="has no validation split"):
            load_vectors(path, "validation")
    split = np.where((np.arange(N) >= 20) & (np.arange(N) < 30), "Validation", split)
    found = load_vectors(write(tmp_path / "three.npz", split=split), "validation")
    np.testing.assert_array_equal(found.read(), X[20:30])


def test_labels_may_lie_in_a_file_of_their_own(tmp_path):
    np.save(tmp_path / "vectors.npy", X)
    (tmp_path / "kinds.txt").write_text("\n".join(WORDS[Y]))
    train, _ = both(tmp_path / "vectors.npy", labels=str(tmp_path / "kinds.txt"))
    np.testing.assert_array_equal([WORDS[y] for y in Y[train.rows]], _names(train))


def _names(part):
    return [part.class_names[label] for label in part.labels]


def test_an_uncompressed_npz_is_mapped_and_a_compressed_one_read(tmp_path):
    train, _ = both(write(tmp_path / "mapped.npz"))
    assert isinstance(train.table, np.memmap)
    np.savez_compressed(tmp_path / "small.npz", x=X, y=Y)
    compressed, _ = both(tmp_path / "small.npz")
    assert not isinstance(compressed.table, np.memmap)
    assert compressed.sha256 == train.sha256  # of the vectors, not of the file


def wrong(**arrays):
    return lambda path: np.savez(path, **{"x": X, "y": Y} | arrays)


NAN = X.copy()
NAN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (wrong(x=X[:-1]), r"39 rows of features, and labels \[40\]"),
        (wrong(x=X.ravel()), r"features must be numbers \[N, D\], got float32 \[120\]"),
        (wrong(x=X.astype(object)), "array 'x' cannot be read: Object arrays cannot be loaded"),
        (wrong(y=Y.astype(object)), "array 'y' cannot be read: Object arrays cannot be loaded"),
        (wrong(y=Y + 1), "row 0: label 1, but 0 does not occur"),
        (wrong(y=Y - 1), "row 0: label -1, but 0 does not occur"),
        (wrong(y=np.where(Y > 2, np.nan, Y)), "row 3: label nan is no whole number"),
        (wrong(y=np.where(Y > 2, "", "a")), "row 3: the label is empty"),
        (wrong(split=np.full(N, "dev")), "row 0: split must be train, test or validation, got dev"),
        (wrong(split=np.full(N, "train")), "holds no vectors to test"),
        (lambda path: np.savez(path, x=X), "has no labels, called y, label.* --labels"),
        (lambda path: np.savez(path, y=Y), "has no array of features, called x, X.*it has y"),
        (lambda path: path.write_bytes(b"nothing"), "cannot be read"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(make, message, tmp_path):
    path = tmp_path / "own.npz"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        both(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_is_not_finite_is_found_with_its_row(tmp_path):
    train, test = both(write(tmp_path / "nan.npz", NAN))
    with pytest.raises(DataError, match=r"nan.npz, row 3: feature 1 is nan"):
        _ = [part.sha256 for part in (train, test)]


def test_lists_of_mixed_lengths_are_refused(tmp_path):
    lists = [*X.tolist()]
    lists[5] = lists[5][:2]
    pd.DataFrame({"x": lists, "y": Y}).to_parquet(tmp_path / "mixed.parquet")
    with pytest.raises(DataError, match="row 5: column 'x' has 2 numbers, row 0 has 3"):
        both(tmp_path / "mixed.parquet")
    pd.DataFrame({"x": list(X), "y": [None, *Y[1:]]}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="row 0: column 'y' has no value"):
        both(tmp_path / "none.parquet")


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    for name, x, y in (("a", X, Y), ("b", X[:, :2], Y), ("c", X, WORDS[Y])):
        write(tmp_path / f"{name}.npz", x, y)
    with pytest.raises(DataError, match=r"a.npz has 3 features in a row, .*b.npz has 2"):
        both(f"{tmp_path}/a.npz,{tmp_path}/b.npz")
    with pytest.raises(DataError, match="labels must be names in all files or numbers in all"):
        both(f"{tmp_path}/a.npz,{tmp_path}/c.npz")
