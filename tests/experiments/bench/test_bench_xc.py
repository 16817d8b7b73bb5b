"""Sparse features and many labels: jist and PyTorch do the same work before they are timed."""

import numpy as np
import pytest

from experiments.bench import timing, xc
from experiments.bench.timing import JIST


def test_steps_agree_with_pytorch_and_learn(monkeypatch):
    torch_sparse = pytest.importorskip("experiments.bench.torch_sparse", exc_type=ImportError)
    for name, value in (("EXAMPLES", 256), ("BATCH", 16), ("STEPS", 3), ("CHECK_STEPS", 3)):
        monkeypatch.setattr(xc, name, value)
    widths = (90, 12, 70)
    differences = xc.check(widths)
    assert differences["loss"] < 1e-5
    assert differences["parameters"] < 1e-3
    case = xc.timing_case(widths, {}, with_torch=True)
    row = timing.measure(case, repeats=1)
    assert row["variants"][JIST]["items"] == row["variants"][xc.TORCH]["items"] == 3 * 16
    assert case.variants[JIST].run() < np.log(2) * 70
    # Another network is other work.
    monkeypatch.setattr(torch_sparse.functional, "batch_norm", lambda z, *_, **__: z)
    with pytest.raises(RuntimeError, match="of torch eager and of jist are .* apart, more than"):
        xc.check(widths)
