"""Random and fixed masks are timed only where they give the same features for the same masks."""

import pytest

from experiments.bench import masks


def test_other_features_are_not_timed(monkeypatch):
    right = masks.features.extract

    def wrong(*arguments, **options):
        found = right(*arguments, **options)
        found.cls[0, 0] += 1
        return found

    monkeypatch.setattr(masks.features, "extract", wrong)
    with pytest.raises(RuntimeError, match="the same masks give features that are 1 apart"):
        next(masks.cases("cpu", quick=True))
