"""Sparse features and many labels: jist and PyTorch do the same work before they are timed."""

import numpy as np
import pytest

from experiments.bench import timing, xc
from experiments.bench.timing import JIST


def test_steps_agree_with_pytorch_and_learn(monkeypatch):
    torch_sparse = pytest.importorskip("experiments.bench.torch_sparse", exc_type=ImportError)
    (case,) = xc.cases("cpu", quick=True)
    differences = case.facts["differences"][xc.TORCH]
    assert differences["loss"] < 1e-5
    assert differences["parameters"] < 1e-3
    row = timing.measure(case, repeats=1)
    items = {variant["items"] for variant in row["variants"].values()}
    assert items == {xc.STEPS * xc.BATCH}
    assert case.variants[JIST].run() < np.log(2) * xc.QUICK_WIDTHS[2]
    # Another network is other work.
    monkeypatch.setattr(torch_sparse.functional, "batch_norm", lambda z, *_, **__: z)
    with pytest.raises(RuntimeError, match="of torch eager and of jist are .* apart, more than"):
        xc.check(xc.QUICK_WIDTHS)
