"""Rounds from disk and from memory are timed only where they come to the same losses."""

import numpy as np
import pytest

from experiments.bench import stream


def test_other_rows_are_not_timed(monkeypatch):
    right = stream.OnDisk.__getitem__
    monkeypatch.setattr(stream.OnDisk, "__getitem__", lambda *of: np.sin(right(*of)))
    with pytest.raises(RuntimeError, match="losses differ"):
        next(stream.cases("cpu", quick=True))
