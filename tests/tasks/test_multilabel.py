"""Losses and metrics of many labels in chunks, beside NumPy's of all labels at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist import trainer
from jist.evaluation import evaluate, predict
from jist.label_probabilities import Scaling, ScoreCounts, fit_scaling
from jist.metrics import MetricsLog
from jist.models import MLP, LinearProbe, SparseMLP
from jist.ragged import Ragged
from jist.strategies import IST
from jist.tasks import (
    count_scores,
    inverse_propensities,
    label_scores,
    multilabel,
    predict_labels,
    prior_logits,
    prior_outputs,
)
from jist.tasks.chunks import top_labels
from jist.tasks.label_loss import LOSSES
from jist.tasks.sampled import sampled_sigmoid_loss

BATCH, WIDTH, LABELS, MOST = 9, 4, 23, 6
GENERATOR = np.random.default_rng(0)
HIDDEN = GENERATOR.normal(size=(BATCH, WIDTH)).astype(np.float32)
KERNEL = GENERATOR.normal(size=(WIDTH, LABELS)).astype(np.float32)
BIAS = GENERATOR.normal(size=LABELS).astype(np.float32)
NUMBER = np.array([0, 1, 2, 3, 4, 5, 6, 1, 2])
Y = np.full((BATCH, MOST), -1, np.int32)
for row, n in enumerate(NUMBER):
    Y[row, :n] = GENERATOR.permutation(LABELS)[:n]
HOT = np.zeros((BATCH, LABELS), np.float32)
HOT[np.repeat(np.arange(BATCH), NUMBER), Y[Y >= 0]] = 1


def whole(name, hidden, kernel, bias):
    logits = hidden @ kernel + bias
    if name == "sigmoid":
        return optax.sigmoid_binary_cross_entropy(logits, HOT).sum(1).mean()
    if name == "squared":
        return ((logits - HOT) ** 2).sum(1).mean()
    losses = -(jax.nn.log_softmax(logits) * HOT).sum(1) / np.maximum(NUMBER, 1)
    return losses.mean()


@pytest.mark.parametrize("chunk", [5, 23, 100])  # 5: the last chunk overlaps the one before it
@pytest.mark.parametrize(("name", "loss"), [*LOSSES.items()])
def test_a_loss_in_chunks_and_its_gradients_are_those_of_all_labels(name, loss, chunk):
    arrays = tuple(map(jnp.asarray, (HIDDEN, KERNEL, BIAS)))
    expected = jax.value_and_grad(lambda *a: 3 * whole(name, *a), (0, 1, 2))(*arrays)
    labels = jnp.asarray(Y)
    found = jax.jit(
        jax.value_and_grad(lambda *a: 3 * loss(*a, labels, chunk), (0, 1, 2)),
    )(*arrays)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected
    )
    np.testing.assert_allclose(3 * loss(*arrays, labels, chunk), expected[0], rtol=1e-5)


def test_drawn_labels_estimate_the_loss_of_all():
    drawn = GENERATOR.integers(0, LABELS, (2000, 12))
    z = HIDDEN @ KERNEL + BIAS
    terms, expected = np.log1p(np.exp(z)), []
    for negatives in drawn:
        total = 0.0
        for i, n in enumerate(NUMBER):
            own = Y[i, :n]
            lacked = [terms[i, label] for label in negatives if label not in own]
            total += sum(terms[i, label] - z[i, label] for label in own)
            total += (LABELS - n) * (np.mean(lacked) if lacked else 0)
        expected.append(total / BATCH)
    arrays = tuple(map(jnp.asarray, (HIDDEN, KERNEL, BIAS, Y)))
    found = jax.jit(jax.vmap(lambda of: sampled_sigmoid_loss(*arrays, of)))(jnp.asarray(drawn))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    error = 4 * np.std(expected) / np.sqrt(len(drawn))
    assert abs(np.mean(expected) - float(whole("sigmoid", *arrays[:3]))) < error

    model = SparseMLP((5, WIDTH, LABELS), norm=None, negatives=12, rngs=nnx.Rngs(0))
    x = {"indices": jnp.zeros((BATCH, 1), jnp.int32), "values": jnp.ones((BATCH, 1))}
    batch, loss = {"x": x, "y": arrays[3]}, multilabel().loss
    assert float(loss(model, batch)) != float(loss(model, batch))  # other labels every time
    model.eval()
    model.negatives, sampler = None, model.negatives
    exact = float(loss(model, batch))
    model.negatives = sampler
    assert float(loss(model, batch)) == exact
    model.train()
    with pytest.raises(ValueError, match="drawn labels need the loss 'sigmoid', got 'squared'"):
        multilabel(loss="squared").loss(model, batch)


@pytest.mark.parametrize("chunk", [3, 10, 23])
def test_the_best_labels_are_those_of_a_stable_sort(chunk):
    kernel, bias = np.zeros_like(KERNEL), np.round(BIAS)  # so that many are equal
    logits = HIDDEN @ kernel + bias
    scores, best = top_labels(*map(jnp.asarray, (HIDDEN, kernel, bias)), 5, chunk)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(best, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(logits, expected, 1))


class Known(nnx.Module):
    """An output layer on what it is given."""

    def __init__(self):
        self.last = nnx.Linear(WIDTH, LABELS, rngs=nnx.Rngs(0))
        self.last.kernel[...], self.last.bias[...] = KERNEL, BIAS

    def hidden(self, x):
        return x

    def __call__(self, x):
        return self.last(x)


def oracle(scores, hot, weights):
    """The metrics in plain NumPy, an example and a label at a time."""
    order = np.argsort(-scores, axis=1)
    found = {}
    for k in (1, 3, 5):
        precision, ndcg, recall, gained, greatest = [], [], [], 0.0, 0.0
        for ranked, true in zip(order, hot, strict=True):
            hits = [true[label] for label in ranked[:k]]
            number = int(true.sum())
            precision.append(sum(hits) / k)
            gained += sum(hit * weights[label] for hit, label in zip(hits, ranked, strict=False))
            greatest += sum(sorted(weights[true > 0], reverse=True)[:k])
            if number:
                ideal = sum(1 / np.log2(i + 2) for i in range(min(k, number)))
                ndcg.append(sum(hit / np.log2(i + 2) for i, hit in enumerate(hits)) / ideal)
                recall.append(sum(hits) / number)
        found[f"test_precision_at_{k}"] = np.mean(precision)
        found[f"test_ndcg_at_{k}"] = np.mean(ndcg)
        found[f"test_recall_at_{k}"] = np.mean(recall)
        found[f"test_ps_precision_at_{k}"] = gained / greatest
    return found


def test_metrics_are_those_of_numpy():
    frequencies = GENERATOR.integers(0, 50, LABELS)
    weights = inverse_propensities(frequencies, 100)
    c = (np.log(100) - 1) * 2.5**0.55
    np.testing.assert_allclose(weights, 1 + c / (frequencies + 1.5) ** 0.55, rtol=1e-6)
    probabilities = 1 / (1 + np.exp(-prior_logits(frequencies, 100)))
    np.testing.assert_allclose(probabilities, (frequencies + 0.5) / 101, rtol=1e-5)
    squared = prior_outputs(frequencies, 100, "squared")
    np.testing.assert_allclose(squared, frequencies / 100, rtol=1e-6)
    assert not prior_outputs(frequencies, 100, "softmax").any()
    task = multilabel(inverse_propensities=weights, chunk=10)
    rows = Ragged.of(NUMBER, Y[Y >= 0], fill=-1)
    expected = oracle(HIDDEN @ KERNEL + BIAS, HOT, weights)
    expected["test_loss"] = float(whole("sigmoid", HIDDEN, KERNEL, BIAS))
    for labels in (Y, rows):
        task.check(Known(), {"x": HIDDEN, "y": labels})
        found = evaluate(Known(), {"x": HIDDEN, "y": labels}, task)
        assert found == pytest.approx(expected, rel=1e-5)
    assert "test_ps_precision_at_1" not in evaluate(
        Known(), {"x": HIDDEN, "y": Y}, multilabel(chunk=10)
    )
    scores, best = predict_labels(Known(), HIDDEN, 2, batch_size=4, chunk=10)
    logits = HIDDEN @ KERNEL + BIAS
    np.testing.assert_array_equal(best, np.argsort(-logits, axis=1)[:, :2])
    np.testing.assert_allclose(scores[:, 0], 1 / (1 + np.exp(-logits.max(1))), rtol=1e-5)
    of = {"loss": "squared", "batch_size": BATCH, "chunk": 10}
    cut, same = predict_labels(Known(), HIDDEN, 2, **of)
    np.testing.assert_array_equal(same, best)
    np.testing.assert_allclose(cut[:, 0], np.clip(logits.max(1), 0, 1), rtol=1e-5)


def test_sparse_examples_with_many_labels_are_learned_by_two_workers(tmp_path, monkeypatch):
    """Whose labels are their features: two rounds an epoch, from the rows to the best epoch."""
    count, features = 64, 12
    lengths = 1 + np.arange(count) % 3
    chosen = [np.sort(GENERATOR.permutation(features)[:n]) for n in lengths]
    flat = np.concatenate(chosen).astype(np.int32)
    x = Ragged.of(lengths, {"indices": flat, "values": np.ones(len(flat), np.float32)})
    examples = {"x": x, "y": Ragged.of(lengths, flat, fill=-1)}
    task = multilabel(chunk=5)
    model = SparseMLP((features, 32, features), dropout=0.1, rngs=nnx.Rngs(0))
    strategy = IST(model, optax.adam(0.05), workers=2, local_steps=2, loss=task.loss)
    how = {"epochs": 8, "batch_size": 8, "seed": 0, "checkpoints": tmp_path / "checkpoints"}
    with MetricsLog(tmp_path, "xc") as log:
        history = trainer.train(
            strategy, examples, examples, **how, task=task, log=log, temperature_examples=examples
        )
    best = max(epoch["test_precision_at_1"] for epoch in history)
    assert best > 0.9 > history[0]["test_precision_at_1"]
    restored = trainer.restore_calibrated(strategy, tmp_path / "checkpoints", "best", task=task)
    model, scaling = restored.model, restored.scaling
    assert evaluate(model, examples, task)["test_precision_at_1"] == pytest.approx(best)
    held = np.zeros((count, features), bool)
    held[np.repeat(np.arange(count), lengths), flat] = True
    scores = np.asarray(predict(model, x))
    dense, counts = ScoreCounts.of(scores, held), count_scores(model, examples, chunk=5)
    assert fit_scaling(dense) == pytest.approx(scaling, rel=1e-3)
    assert counts.log_loss(scaling) == pytest.approx(dense.log_loss(scaling), rel=1e-3)
    assert counts.log_loss(scaling) <= counts.log_loss(Scaling(1.0, 0.0))
    monkeypatch.setattr(label_scores, "MOST_SCORES", 30 * features)  # every third example
    assert count_scores(model, examples, chunk=5).examples == 22
    assert multilabel(loss="squared").fit(model, examples) == {}
    p, best = predict_labels(model, x, 2, scaling=scaling)
    wanted = np.take_along_axis(scaling.probabilities(scores), best, axis=1)
    np.testing.assert_allclose(p, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[0, LABELS]]), r"must lie in \[0, 23\), .* or be -1, got 0 to 23"),
        (np.array([[0, -2]]), r"or be -1, got -2 to 0"),
        (np.array([[4, 4]]), "must hold each label of an example once"),
        (np.array([0]), r"must be integers \[N, most\], got int64 \(1,\)"),
        (Ragged.of(np.array([2]), np.array([4, 4]), fill=-1), "each label of an example once"),
    ],
)
def test_labels_that_cannot_be_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        multilabel().check(MLP((WIDTH, 3, LABELS), rngs=nnx.Rngs(0)), {"x": HIDDEN[:1], "y": y})


def test_what_is_no_task_or_no_model_for_it_is_refused():
    with pytest.raises(ValueError, match="one of sigmoid, softmax, squared, got 'hinge'"):
        multilabel(loss="hinge")
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        multilabel(chunk=0)
    with pytest.raises(ValueError, match="must have `hidden` and `last`, .* got LinearProbe"):
        multilabel().check(LinearProbe(WIDTH, LABELS, rngs=nnx.Rngs(0)), {"x": HIDDEN, "y": Y})
