"""Sparse examples as text, written here and read back, and everything that can be wrong with it."""

import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jist.data import DataError
from jist.data.sparse import load_xc, load_xc_features, text

FEATURES, LABELS = 50, 20
VALUES = st.floats(-(2.0**99), 2.0**99, width=32)
ROW = st.tuples(
    st.lists(st.integers(0, LABELS - 1), unique=True, max_size=4),
    st.dictionaries(st.integers(0, FEATURES - 1), VALUES, max_size=6),
)


def line(labels, features):
    pairs = " ".join(f"{index}:{value!r}" for index, value in features.items())
    return f"{','.join(map(str, labels))} {pairs}"


def written(path, rows, *, header=None, name="train.txt"):
    head = header or f"{len(rows)} {FEATURES} {LABELS}"
    lines = [row if isinstance(row, str) else line(*row) for row in rows]
    (path / name).write_text("\n".join([head, *lines]) + "\n")


@pytest.fixture
def folder(tmp_path):
    written(tmp_path, [((1,), {2: 0.5})], name="test.txt")
    return tmp_path


def rows_of(ragged, entries):
    return [
        entries[first:last].tolist()
        for first, last in zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True)
    ]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    path = tmp_path_factory.mktemp("xc")
    written(path, [((1,), {2: 0.5})], name="test.txt")
    return path


@given(rows=st.lists(ROW, max_size=12), block=st.sampled_from([1, 60, 1 << 16]))
def test_what_was_written_is_read(once, rows, block):
    """Whether a block holds a line or all of them."""
    written(once, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", block)
        read = load_xc(once, "train")
    assert (len(read), read.feature_count, read.label_count) == (len(rows), FEATURES, LABELS)
    assert rows_of(read.labels, read.labels.entries) == [list(labels) for labels, _ in rows]
    features = read.features.entries
    assert rows_of(read.features, features["indices"]) == [list(f) for _, f in rows]
    expected = [np.float32([*f.values()]).tolist() for _, f in rows]
    assert rows_of(read.features, features["values"]) == expected


GOOD = [((3, 1), {7: 0.5, 2: -1e-3}), ((), {0: 2.0}), ((5,), {})]


def test_a_pair_of_matrices_compressed_or_not_says_the_same(folder):
    written(folder, GOOD)
    expected = load_xc(folder, "train")
    pairs = folder / "pairs"
    pairs.mkdir()
    for split, rows in (("trn", GOOD), ("tst", GOOD[:1])):
        x = [" ".join(f"{i}:{v}" for i, v in features.items()) for _, features in rows]
        y = [" ".join(f"{label}:1.0" for label in labels) for labels, _ in rows]
        written(pairs, x, header=f"{len(x)} {FEATURES}", name=f"{split}_X_Xf.txt")
        written(pairs, y, header=f"{len(y)} {LABELS}", name=f"{split}_X_Y.txt")
    plain = pairs / "trn_X_Xf.txt"
    plain.with_suffix(".txt.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    found = load_xc(pairs, "train")
    assert len(load_xc(pairs, "test")) == 1
    assert found.describe()["examples_sha256"] == expected.describe()["examples_sha256"]
    assert found.describe() != expected.describe()  # their names differ


def test_features_of_one_split_need_neither_the_other_nor_labels(folder):
    written(folder, GOOD, name="test.txt", header=f"3 {FEATURES} 6")  # of other labels
    rows, count = load_xc_features(folder, "test")
    assert (len(rows), count) == (3, FEATURES)
    written(folder, [*GOOD[:2], "1 50:1"], name="test.txt")
    with pytest.raises(DataError, match=r"test.txt, line 4: feature 50 is not in \[0, 50\)"):
        load_xc_features(folder, "test")
    pair = folder / "pair"
    pair.mkdir()
    with pytest.raises(DataError, match="no examples to test: looked for test.txt, and for tst"):
        load_xc_features(pair, "test")
    lines = [" ".join(f"{i}:{v}" for i, v in features.items()) for _, features in GOOD]
    written(pair, lines, header=f"3 {FEATURES}", name="tst_X_Xf.txt")
    again, count = load_xc_features(pair, "test")
    assert count == FEATURES
    for name in ("indices", "values"):
        np.testing.assert_array_equal(again.entries[name], rows.entries[name])
    with pytest.raises(ValueError, match="is none"):
        load_xc_features(pair / "tst_X_Xf.txt", "test")


def test_examples_without_a_label_or_a_feature_are_kept_or_counted(folder):
    written(folder, GOOD)
    kept, some = load_xc(folder, "train"), load_xc(folder, "train", skip_empty=True)
    assert (len(kept), kept.left_out, len(some), some.left_out) == (3, 0, 1, 2)
    batch = kept.features[np.arange(3)]
    np.testing.assert_array_equal(batch["indices"], [[7, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch["values"], np.float32([[0.5, -1e-3], [2, 0], [0, 0]]))
    np.testing.assert_array_equal(kept.labels[np.arange(3)], [[3, 1], [-1, -1], [5, -1]])
    np.testing.assert_array_equal(kept.label_frequencies[[1, 2, 3, 5]], [1, 0, 1, 1])
    assert kept.example_ids[0] == some.example_ids[0]


def test_held_out_examples_are_a_share_by_the_seed(folder):
    written(folder, [((i % LABELS,), {i % FEATURES: float(i + 1)}) for i in range(40)])
    left, held = load_xc(folder, "train").hold_out(0.25, seed=1)
    assert (len(left), len(held)) == (30, 10)
    assert sorted([*left.numbers, *held.numbers]) == list(range(40))
    np.testing.assert_array_equal(held.features.entries["values"], held.numbers + 1)
    again = load_xc(folder, "train")
    assert (again.hold_out(0.25, seed=1)[1].numbers == held.numbers).all()
    assert (again.hold_out(0.25, seed=2)[1].numbers != held.numbers).any()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("20 1:1", r"line 4: label 20 is not in \[0, 20\), which the header says"),
        ("-1 1:1", r"line 4: a label must be a whole number, got '-1'"),
        ("1,,2 1:1", r"line 4: a label must be a whole number, got ''"),
        ("1,1 1:1", r"line 4: label 1 stands there twice"),
        ("1 50:1", r"line 4: feature 50 is not in \[0, 50\)"),
        ("1 1.5:1", r"line 4: a feature must be a whole number, got '1.5'"),
        ("1 -3:1", r"line 4: a feature must be a whole number, got '-3'"),
        ("1 3:1 3:2", r"line 4: feature 3 stands there twice"),
        ("1 3:nan", r"line 4: the value of feature 3 is not finite: 'nan'"),
        ("1 3:1 4:1e39", r"line 4: the value of feature 4 is not finite: '1e39'"),
        ("1 3:", r"line 4: expected a feature as index:value, got '3:'"),
        ("1 3:1 4", r"line 4: expected a feature as index:value, got '4'"),
        ("1 3 :1", r"line 4: expected a feature as index:value, got '3'"),
        ("1 3:1:2 4", r"line 4: expected a feature as index:value, got '3:1:2'"),
        ("1 3:1-2 4:", r"line 4: expected a feature as index:value, got '3:1-2'"),
        ("a 3:1", r"line 4: a label must be a whole number, got 'a'"),
    ],
)
def test_a_line_that_is_wrong_is_named(folder, bad, says):
    written(folder, [*GOOD[:2], bad, GOOD[2]])
    with pytest.raises(DataError, match=rf"train.txt, {says}"):
        load_xc(folder, "train")


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("4 50 20", r"train.txt ends after 3 examples; its header says 4"),
        ("2 50 20", r"train.txt, line 4: an example more than the 2 that the header says"),
        ("3 50", r"line 1: expected the numbers of examples, features, labels, got '3 50'"),
        ("3 50 x", r"line 1: expected the numbers of examples, features, labels, got '3 50 x'"),
        ("3 51 20", r"the headers differ: 51 features to train on, 50 to test on"),
    ],
)
def test_a_header_that_does_not_fit_is_named(folder, header, says):
    written(folder, GOOD, header=header)
    with pytest.raises(DataError, match=says):
        load_xc(folder, "train")


def test_files_that_are_missing_or_broken_are_named(folder):
    with pytest.raises(DataError, match=r"no examples to train: looked for train.txt, and for trn"):
        load_xc(folder, "train")
    with pytest.raises(ValueError, match="is none"):
        load_xc(folder / "test.txt", "train")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'valid'"):
        load_xc(folder, "valid")
    written(folder, GOOD)
    whole = gzip.compress((folder / "train.txt").read_bytes())
    (folder / "train.txt").unlink()
    (folder / "train.txt.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match=r"train.txt.gz cannot be read: "):
        load_xc(folder, "train")
    written(folder, GOOD[:1], header="3 50", name="trn_X_Xf.txt")
    written(folder, GOOD[:1], header="2 20", name="trn_X_Y.txt")
    (folder / "train.txt.gz").unlink()
    with pytest.raises(DataError, match=r"the headers differ: 3 examples in .*, 2 in "):
        load_xc(folder, "train")


def test_reading_takes_less_than_three_times_the_text(folder):
    """Of the densest text, in which an entry takes six bytes."""
    rows = [f"{i % LABELS} " + " ".join(f"{j}:1" for j in range(10, 50)) for i in range(6000)]
    written(folder, rows)
    size = (folder / "train.txt").stat().st_size
    load_xc(folder, "test")  # what is imported on the way is no part of it
    tracemalloc.start()
    try:
        load_xc(folder, "train")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * size
