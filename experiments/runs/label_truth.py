"""How true the probabilities of many labels are."""

from typing import Any

import numpy as np
from flax import nnx

from experiments.runs.calibration import Truth
from jist.label_probabilities import Scaling, ScoreCounts
from jist.probabilities import Reliability
from jist.tasks import best_labels, count_scores, thinned

MOST = 5  # labels of an example whose probabilities are compared with how often they are right
_LEAST = 1e-6  # probability, of outputs of the squared loss, which may be 0 and below


def label_truth_of(model: nnx.Module, examples: Any, scaling: Scaling | None, loss: str) -> Truth:
    """Measures a network with many labels.

    The calibration error is of the five likeliest labels of each example, those that are said of
    it; log-likelihood and Brier score are sums over all labels, means over the examples.

    Args:
        model: the full network, in evaluation mode.
        examples: {"x", "y"}, as for `jist.tasks.multilabel`; of very many labels some of them.
        scaling: of its checkpoint.
        loss: that it was trained by. Outputs of "squared" are taken as probabilities.
    """
    examples = thinned(examples, model.last.kernel.shape[1])  # type: ignore[union-attr]
    counts = count_scores(model, examples)
    scores, best = best_labels(model, examples["x"], MOST)
    right = (best[:, :, None] == np.asarray(examples["y"][:])[:, None, :]).any(axis=2)

    def by(given: Scaling) -> Reliability:
        sums = counts.log_loss(given), counts.squares(given)
        return Reliability.of_labels(given.probabilities(scores), right, *sums)

    raw = by(Scaling(1.0, 0.0)) if loss != "squared" else _as_they_are(counts, scores, right)
    fitted = None if scaling is None else by(scaling)
    return Truth(
        temperature=None if scaling is None else scaling.temperature,
        offset=None if scaling is None else scaling.offset,
        raw=raw,
        by_workers=None,
        calibrated=fitted,
    )


def _as_they_are(counts: ScoreCounts, scores: np.ndarray, right: np.ndarray) -> Reliability:
    """Of scores that are probabilities, cut to what these may be."""
    cut = counts.replaced(lambda z: _logit(np.clip(z, _LEAST, 1 - _LEAST)))
    same = Scaling(1.0, 0.0)
    p = np.clip(scores, _LEAST, 1 - _LEAST)
    return Reliability.of_labels(p, right, cut.log_loss(same), cut.squares(same))


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)
