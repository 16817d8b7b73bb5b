import itertools

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss

from jist.probabilities import Reliability, fit_temperature, log_probabilities


def drawn(examples, classes=7, temperature=1.0, seed=0):
    """Logits `temperature` times too large, and labels drawn from the true probabilities."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(examples, classes))
    labels = (generator.gumbel(size=logits.shape) + logits).argmax(axis=1)
    return (temperature * logits).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.05, 1, 4.8])
def test_the_temperature_is_scipys_minimum_and_nearly_the_true_one(temperature):
    logits, labels = drawn(3000, temperature=temperature)
    targets = np.full(logits.shape, 1 / 3001 / 7)
    targets[np.arange(3000), labels] += 3000 / 3001

    def likelihood(log_t):
        return -(targets * log_softmax(logits.astype(float) / np.exp(log_t), axis=1)).sum()

    found = fit_temperature(logits, labels)
    expected = np.exp(minimize_scalar(likelihood, bounds=(-6, 6), method="bounded").x)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.1)


def test_likelihood_and_brier_score_are_scikit_learns():
    logits, labels = drawn(500, temperature=3)
    for temperature in (1.0, 2.5):
        p = softmax(logits.astype(float) / temperature, axis=1)
        parts = [
            Reliability.of(logits[some], labels[some], temperature)
            for some in (slice(0, 200), slice(200, None))
        ]
        metrics = (parts[0] + parts[1]).metrics
        assert metrics["nll"] == pytest.approx(log_loss(labels, p, labels=range(7)), rel=1e-9)
        brier = brier_score_loss(labels, p, labels=range(7), scale_by_half=False)
        assert metrics["brier"] == pytest.approx(brier, rel=1e-9)
        np.testing.assert_allclose(np.exp(log_probabilities(logits, temperature)), p, rtol=1e-9)


def test_the_calibration_error_is_that_of_a_loop_over_bins():
    logits, labels = drawn(400, temperature=3)
    p = softmax(logits.astype(float), axis=1)
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels
    expected, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in itertools.pairwise(edges):
        here = (sure > low) & (sure <= high)
        if here.any():
            expected += here.mean() * abs(sure[here].mean() - right[here].mean())
    found = Reliability.of(logits, labels)
    assert found.ece == pytest.approx(expected, rel=1e-9)
    assert sum(some["count"] for some in found.bins) == found.total == 400
    assert Reliability.of(logits, labels, 3.0).ece < found.ece / 2


def test_examples_that_are_all_classified_rightly_give_no_temperature_of_zero():
    logits = np.eye(10, dtype=np.float32)[np.arange(70) % 10]
    temperature = fit_temperature(logits, np.arange(70) % 10)
    # The pseudo example spreads 1/71 over the ten classes.
    expected = 1 - 0.9 / 71
    assert softmax(logits[0] / temperature)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "message"),
    [(np.zeros((0, 3)), "at least 1 example"), (np.full((2, 3), np.nan), "must be finite")],
)
def test_what_has_no_temperature_is_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, np.zeros(len(logits), int))
