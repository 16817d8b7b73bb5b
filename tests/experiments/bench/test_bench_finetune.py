"""Fine-tuning in jist and in PyTorch is the same work before anybody times it."""

import numpy as np
import pytest

from experiments.bench import finetune
from experiments.bench.timing import JIST

TORCH = "torch eager"


@pytest.fixture(scope="module")
def work():
    return finetune.make_work("a small encoder", finetune.QUICK, batch=4, steps=6)


def test_steps_agree_with_pytorch_and_learn(work):
    pytest.importorskip("torch", reason="the other variant")
    case = finetune.finetune_case(work, "cpu", compiled=False)
    assert case.facts["check_steps"] == finetune.CHECK_STEPS
    assert case.facts["differences"][TORCH]["loss"] < 1e-5
    assert case.facts["differences"][TORCH]["parameters"] < 1e-3
    losses = {name: [variant.run() for _ in range(4)] for name, variant in case.variants.items()}
    np.testing.assert_allclose(losses[TORCH], losses[JIST], rtol=1e-4)
    assert losses[JIST][-1] < losses[JIST][0]
    assert {variant.items for variant in case.variants.values()} == {4 * 6}


def test_one_rate_for_all_layers_is_other_work(work, monkeypatch):
    torch_finetune = pytest.importorskip("experiments.bench.torch_finetune", exc_type=ImportError)
    monkeypatch.setattr(torch_finetune.TrainableClassifier, "_layer", lambda self, name: 3)
    with pytest.raises(RuntimeError, match="of torch eager and of jist are .* apart, more"):
        finetune.finetune_case(work, "cpu", compiled=False)


def test_everything_is_compared_but_what_changes_nothing(work):
    """Of each block's fused bias queries and values; positions are fixed."""
    dim, mlp_dim = finetune.QUICK.dim, finetune.QUICK.mlp_dim
    shapes = sorted(array.shape for array in work.start)
    block = [(dim,)] * 8 + [(mlp_dim,), (3 * dim, dim), (dim, dim), (mlp_dim, dim), (dim, mlp_dim)]
    outside = [(1, 1, dim), (dim, 3, 4, 4), (dim,), (dim,), (dim,), (10, dim), (10,)]
    assert shapes == sorted(block * finetune.QUICK.depth + outside)
    named = {"a.qkv.bias": np.arange(6.0), "pos_embed": np.ones(2), "a.bias": np.ones(1)}
    assert [array.tolist() for array in finetune.compared(named)] == [[1], [0, 1], [4, 5]]


def test_without_pytorch_jist_goes_alone(work, monkeypatch):
    monkeypatch.setattr(finetune, "has_torch", lambda: False)
    assert finetune.finetune_case(work, "cpu", compiled=True).variants.keys() == {JIST}
