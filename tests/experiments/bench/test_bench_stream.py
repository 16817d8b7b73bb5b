"""Rounds from disk and from memory are timed only where they come to the same losses."""

import numpy as np
import pytest

from experiments.bench import stream, timing


def test_both_train_on_the_same_rows(tmp_path, monkeypatch):
    for name, value in (("DIM", 4), ("WORKERS", 2), ("BATCH", 4), ("LOCAL_STEPS", 2)):
        monkeypatch.setattr(stream, name, value)
    stream.write(tmp_path / "x.npy", 3000)
    case = stream.case(tmp_path / "x.npy", (6,))
    row = timing.measure(case, repeats=1)
    assert [of["items"] for of in row["variants"].values()] == [4 * 2 * 2 * 4] * 2
    right = stream.OnDisk.__getitem__
    monkeypatch.setattr(stream.OnDisk, "__getitem__", lambda *of: np.sin(right(*of)))
    with pytest.raises(RuntimeError, match="losses differ"):
        stream.case(tmp_path / "x.npy", (6,))
