"""Losses and metrics of tasks, in parts, beside NumPy's and scikit-learn's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.metrics import f1_score, log_loss, r2_score

from jist.evaluation import evaluate, predict
from jist.models import LinearProbe
from jist.tasks import Task, classification, count, regression

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(50, 6)).astype(np.float32)


class Linear(nnx.Module):
    """x @ w."""

    def __init__(self, w):
        self.w = nnx.Param(jnp.asarray(w, jnp.float32))

    def __call__(self, x):
        return x @ self.w[...]


W = GENERATOR.normal(size=(6, 3))


@pytest.mark.parametrize("at_once", [50, 20, 7])  # 7: the last part holds one example
def test_a_classifier_measured_in_parts_is_the_one_measured_whole(at_once):
    y = GENERATOR.integers(0, 3, 50).astype(np.int32)
    task = dataclasses.replace(classification(), examples_at_once=at_once)
    found = evaluate(Linear(W), {"x": X, "y": y}, task)
    logits = X @ W
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found == {
        "test_loss": pytest.approx(log_loss(y, probabilities), rel=1e-5),
        "test_accuracy": (logits.argmax(axis=1) == y).mean(),
    }
    np.testing.assert_allclose(predict(Linear(W), X, at_once), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [50, 7])
@pytest.mark.parametrize("offset", [0.0, 1e4])  # squares of so large numbers keep no digits of y
def test_r2_is_scikit_learns(at_once, offset):
    y = (X @ W + GENERATOR.normal(size=(50, 3)) * [0.1, 1, 3] + offset).astype(np.float32)

    class Shifted(Linear):
        def __call__(self, x):
            return super().__call__(x) + offset

    task = dataclasses.replace(regression(), examples_at_once=at_once)
    model = Shifted(W)
    found = evaluate(model, {"x": X, "y": y}, task, split="validation")
    predicted = np.asarray(predict(model, X), np.float64)
    assert found["validation_r2"] == pytest.approx(r2_score(y, predicted), abs=1e-4)
    assert found["validation_loss"] == pytest.approx(np.mean((predicted - y) ** 2), rel=1e-4)


def test_r2_of_an_output_that_never_varies_is_scikit_learns():
    y = np.stack([np.zeros(50), np.ones(50), X[:, 0]], axis=1).astype(np.float32)
    model = Linear(np.stack([np.zeros(6), np.ones(6), np.eye(6)[0]], axis=1))
    found = evaluate(model, {"x": X, "y": y}, regression())
    assert found["test_r2"] == pytest.approx(r2_score(y, np.asarray(model(X))))


def sigmoid_loss(model, batch):
    return optax.sigmoid_binary_cross_entropy(model(batch["x"]), batch["y"]).mean()


def counts(model, batch):
    found, true = model(batch["x"]) > 0, batch["y"] > 0
    return {"both": jnp.sum(found & true), "found": found.sum(), "true": true.sum()}


def f1(sums):
    return {"f1": 2 * sums["both"] / (sums["found"] + sums["true"])}


def test_ones_own_metric_is_made_of_sums_over_all_parts():
    y = (X @ W + GENERATOR.normal(size=(50, 3)) > 0).astype(np.float32)
    task = Task(sigmoid_loss, counts, f1, best="f1", examples_at_once=7)
    assert (task.best, task.higher_is_better) == ("f1", True)
    found = evaluate(Linear(W), {"x": X, "y": y}, task)
    assert found["test_f1"] == pytest.approx(f1_score(y, X @ W > 0, average="micro"))
    alone = Task(sigmoid_loss)
    assert (alone.best, alone.higher_is_better) == ("loss", False)
    assert evaluate(Linear(W), {"x": X, "y": y}, alone).keys() == {"test_loss"}


def test_sums_over_many_examples_overflow_no_integer():
    big = Task(sigmoid_loss, lambda model, batch: {"n": jnp.int32(2**30)}, lambda sums: sums)
    y = np.zeros((50, 3), np.float32)
    found = evaluate(Linear(W), {"x": X, "y": y}, dataclasses.replace(big, examples_at_once=10))
    assert found["test_n"] == 5 * 2**30


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 3]), r"must lie in \[0, 3\), which are the model's outputs, got 0 to 3"),
        (np.array([-1, 2]), r"must lie in \[0, 3\), .* got -1 to 2"),
        (np.array([0.0, 1.0]), r"must be integers \[N\], got float64 \[2\]"),
        (np.array([[0], [1]]), r"must be integers \[N\], got int64 \[2, 1\]"),
    ],
)
def test_labels_that_a_classifier_cannot_have_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        classification().check(Linear(W), {"x": X[:2], "y": labels})


def test_a_check_changes_no_model():
    model = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.BatchNorm(6, rngs=nnx.Rngs(0)))

    def numbers():
        return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))

    before = numbers()
    classification().check(model, {"x": X, "y": np.zeros(50, np.int32)})
    for a, b in zip(before, numbers(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_regression_never_broadcasts_outputs_against_targets():
    examples = {"x": jnp.asarray(X), "y": jnp.zeros(50)}
    with pytest.raises(ValueError, match=r"the model's output, \[50, 1\] .*, got \[50\]"):
        regression().loss(LinearProbe(6, 1, rngs=nnx.Rngs(0)), examples)


def test_a_task_that_contradicts_itself_is_refused():
    examples = {"x": X, "y": np.zeros((50, 3), np.float32)}
    for metrics, best in ((f1, "F1"), (lambda sums: {"loss": 0.0}, "loss")):
        with pytest.raises(ValueError, match=r"task.best must be 'loss' or one of task.metrics"):
            evaluate(Linear(W), examples, Task(sigmoid_loss, counts, metrics, best=best))
    with pytest.raises(ValueError, match="examples_at_once must be at least 1, got 0"):
        Task(sigmoid_loss, examples_at_once=0)
    with pytest.raises(ValueError, match="test examples must be at least 1, got 0"):
        evaluate(Linear(W), {"x": X[:0]}, Task(sigmoid_loss))


def test_examples_are_counted_and_must_agree():
    assert count({"a": X, "b": (X[:, 0], jax.ShapeDtypeStruct((50, 2), jnp.int32))}) == 50
    with pytest.raises(ValueError, match=r"got \[50, 6\] at \['x'\], \[49\] at \['y'\]"):
        count({"x": X, "y": X[1:, 0]})
    for without in ({}, {"x": np.float32(1)}):
        with pytest.raises(ValueError, match="examples must be a tree of arrays"):
            count(without)
