import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss

from jist.label_probabilities import Scaling, ScoreCounts, fit_scaling

TRUE = Scaling(3.0, -2.0)


def drawn(examples=400, labels=30, seed=0):
    """Scores, and labels drawn with the probabilities that `TRUE` gives them."""
    generator = np.random.default_rng(seed)
    z = (4 * generator.normal(size=(examples, labels))).astype(np.float32)
    return z, generator.random(z.shape) < TRUE.probabilities(z)


def test_counts_lose_nothing_that_matters():
    z, held = drawn()
    counts = ScoreCounts.of(z[:150], held[:150]) + ScoreCounts.of(z[150:], held[150:])
    assert counts.examples == len(z)
    for scaling in (Scaling(1.0, 0.0), Scaling(2.5, -1.0)):
        p = expit(z.astype(float) / scaling.temperature + scaling.offset)
        np.testing.assert_allclose(scaling.probabilities(z), p)
        wanted = log_loss(held.ravel(), p.ravel(), normalize=False)
        assert counts.log_loss(scaling) == pytest.approx(wanted, rel=1e-4)
        assert counts.squares(scaling) == pytest.approx(((p - held) ** 2).sum(), rel=1e-4)
    moved = counts.replaced(lambda z: 2 * z + 1).log_loss(Scaling(2.0, -0.5))
    assert moved == pytest.approx(counts.log_loss(Scaling(1.0, 0.0)), rel=1e-4)
    with pytest.raises(FloatingPointError):
        ScoreCounts.of(np.full((1, 2), np.nan), np.ones((1, 2), bool))


def test_the_scaling_is_scipys_minimum_and_nearly_the_true_one():
    z, held = drawn()
    n, m = held.sum(), (~held).sum()
    targets = np.where(held, (n + 1) / (n + 2), 1 / (m + 2))

    def loss(a):
        s = a[0] * z.astype(float) + a[1]
        return (np.logaddexp(0, s) - targets * s).mean()

    best = minimize(loss, [1.0, 0.0], method="BFGS").x
    found = fit_scaling(ScoreCounts.of(z, held))
    assert 1 / found.temperature == pytest.approx(best[0], rel=1e-3)
    assert found.offset == pytest.approx(best[1], rel=1e-3)
    assert found == pytest.approx(TRUE, rel=0.1)


@pytest.mark.parametrize(
    ("scores", "held"),
    [
        ([[3.0, -3.0]], [[True, False]]),  # told apart: T is not 0
        ([[-3.0, 3.0]], [[True, False]]),  # the wrong way round: T is not negative
        ([[1.0, 1.0]], [[True, False]]),
        ([[1.0, 2.0]], [[False, False]]),
        ([[0.9, 0.1, 0.0]], [[True, False, False]]),  # of squared errors
        ([[1e6, -1e6]], [[True, False]]),
    ],
)
def test_few_scores_give_a_finite_scaling(scores, held):
    found = fit_scaling(ScoreCounts.of(np.array(scores), np.array(held)))
    assert 1e-4 <= found.temperature <= 1e4
    assert np.isfinite(found.offset)


def test_without_examples_there_is_none():
    with pytest.raises(ValueError, match="at least 1 example, got 0"):
        fit_scaling(ScoreCounts.of(np.zeros((0, 2)), np.zeros((0, 2), bool)))
