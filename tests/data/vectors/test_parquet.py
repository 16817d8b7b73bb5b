"""Tables in Parquet: which columns are features, by which names, and what is said of the others."""

import decimal
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from jist.data import DataError
from jist.data.vectors import in_order_of, load_vectors, read_columns, read_features, read_files

N = 12
X = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)
Y = np.arange(N) % 2
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=Y)


@pytest.fixture
def write(tmp_path):
    def to(frame, name="t.parquet"):
        frame.to_parquet(tmp_path / name)
        return tmp_path / name

    return to


def test_an_index_of_pandas_is_no_feature(write):
    order = np.random.default_rng(0).permutation(N)
    found = read_columns(write(FRAME.iloc[order]))  # it is stored as __index_level_0__
    assert (found.names, found.remarks) == (("a", "b", "c"), ())
    np.testing.assert_array_equal(found.x, X[order])
    found = read_columns(write(FRAME.assign(day=np.arange(N) * 0.5).set_index("day")))
    assert found.names == ("a", "b", "c")
    assert found.remarks == (f"{found.path}: left out of the features: day (the index in pandas)",)
    found = read_columns(write(FRAME.assign(id=order).set_index("id")))  # it still names rows
    np.testing.assert_array_equal(found.key, order)
    assert (found.names, found.remarks) == (("a", "b", "c"), ())
    table = pa.table({"a": X[:, 0], "label": Y, "__index_level_0__": np.arange(N)})
    parquet.write_table(table.replace_schema_metadata({"pandas": "{"}), found.path)  # damaged
    assert read_columns(found.path).names == ("a",)


def test_what_is_called_like_labels_is_no_feature(write):
    path = write(FRAME.assign(target=1.0 - Y, id=np.arange(N), key=np.arange(N)))
    with pytest.raises(DataError, match=r"several columns .*: label, target; --labels chooses one"):
        read_columns(path)
    left = "left out of the features: label, key (called like labels, splits or keys)"
    found = read_columns(path, "target")
    np.testing.assert_array_equal(found.label, 1 - Y)
    assert (found.names, found.remarks) == (("a", "b", "c"), (f"{path}: {left}",))
    np.save(path.with_name("kind.npy"), Y)
    found = read_columns(path, str(path.with_name("kind.npy")))
    assert found.names == ("a", "b", "c")
    assert "features: label, target, key (called" in found.remarks[0]
    assert load_vectors(path, "train", labels="target").remarks == (f"{path}: {left}",)


def test_decimals_are_numbers_and_other_columns_are_told(write):
    cents = [decimal.Decimal(f"{n}.25") for n in range(N)]
    more = {"price": cents, "town": ["x"] * N, "day": pd.Timestamp("2026-01-01")}
    found = read_columns(write(FRAME.assign(**more)))
    assert found.names == ("a", "b", "c", "price")
    np.testing.assert_array_equal(found.x[:, 3], np.arange(N) + np.float32(0.25))
    assert found.remarks == (f"{found.path}: left out of the features: town, day (no numbers)",)
    whole = [decimal.Decimal(int(y)) for y in Y]
    train = load_vectors(write(FRAME.assign(label=whole)), "train")
    np.testing.assert_array_equal(train.labels, Y[train.rows])
    lists = pa.array([[decimal.Decimal("0.5")] * 2] * N)
    parquet.write_table(pa.table({"x": lists, "y": Y}), found.path)
    np.testing.assert_array_equal(read_columns(found.path).x, np.full((N, 2), 0.5))


def test_test_vectors_come_in_the_order_of_the_training_vectors(write):
    train = write(FRAME, "train.parquet")
    other = write(FRAME[["c", "label", "a", "b"]], "other.parquet")
    files = read_files(f"{train},{other}", None)
    assert files[1].names == ("a", "b", "c")
    np.testing.assert_array_equal(files[1].x, X)
    for frame, said in (
        (FRAME.rename(columns={"c": "q"}), "it lacks c and adds q"),
        (FRAME.drop(columns="c"), "it lacks c$"),
        (FRAME.assign(**{f"q{n}": X[:, 0] for n in range(7)}), "it adds q0, .*, q4 and 2 more"),
    ):
        pair = f"{train},{write(frame, 'unlike.parquet')}"
        with pytest.raises(DataError, match=f"unlike.*other features than .*train.*: {said}"):
            read_files(pair, None)
    np.savez(train.with_name("t.npz"), x=X, y=Y)  # without names: by position
    assert read_files(f"{train},{train.with_name('t.npz')}", None)[1].names is None


def test_features_alone_need_no_labels_and_leave_those_out(write):
    frame = FRAME.rename(columns={"label": "kind"})
    alone = read_features(write(frame.assign(id=0, target=1, label=2)), "kind")
    assert (alone.names, alone.label, alone.key) == (("a", "b", "c"), None, None)
    assert read_features(write(frame.drop(columns="kind")), "kind").names == ("a", "b", "c")
    given = in_order_of(alone, ("c", "a", "b"), "a run")
    np.testing.assert_array_equal(given.x, X[:, [2, 0, 1]])


def test_a_row_without_a_list_is_named_and_fixed_lists_are_read(tmp_path):
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)):
        for rows in ([*X.tolist()], [*X[:-1].tolist(), None]):
            table = pa.table({"x": pa.array(rows, kind), "y": Y})
            parquet.write_table(table, tmp_path / "t.parquet", row_group_size=5)
            if rows[-1] is None:
                with pytest.raises(DataError, match="t.parquet, row 11: column 'x' has no value"):
                    read_columns(tmp_path / "t.parquet")
            else:
                np.testing.assert_array_equal(read_columns(tmp_path / "t.parquet").x, X)


def test_numbers_beyond_float32_are_refused(write):
    far = X.astype(np.float64)
    far[4, 1] = -1e300
    path = write(pd.DataFrame(far, columns=["a", "b", "c"]).assign(label=Y))
    with pytest.raises(DataError, match=r"row 4: column 'b' is -1e\+300, beyond float32"):
        read_columns(path)
    np.savez(path.with_name("far.npz"), x=far, y=Y)
    parts = [load_vectors(path.with_name("far.npz"), split) for split in ("train", "test")]
    with pytest.raises(DataError, match=r"far.npz, row 4: feature 1 is -1e\+300, beyond float32"):
        _ = [part.sha256 for part in parts]


@pytest.mark.parametrize("name", ["t.parquet", "t.npz"])
def test_two_rows_with_one_key_are_refused(name, write):
    keys = np.arange(N) + 100
    keys[7] = keys[9] = keys[2]
    path = write(FRAME.assign(id=keys))
    if name == "t.npz":
        path = path.with_name(name)
        np.savez(path, x=X, y=Y, id=keys)
    with pytest.raises(DataError, match=r"rows 2 and 7 have the same id or key, '102'; every"):
        load_vectors(path, "train")


def test_a_table_without_the_metadata_of_pandas_is_read(tmp_path):
    parquet.write_table(pa.table({"a": X[:, 0], "b": X[:, 1], "label": Y}), tmp_path / "t.parquet")
    found = read_columns(tmp_path / "t.parquet")
    assert (found.names, json.dumps(found.remarks)) == (("a", "b"), "[]")
