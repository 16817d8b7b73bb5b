"""Whether the probabilities of many labels are true: Platt's scaling, and what is measured of it.

Platt: Probabilistic Outputs for Support Vector Machines (1999). A label's probability is
sigmoid(z / T + c) of its score z, by a softmax, too: T and c are fitted on examples that the
network was not trained on, the same for all labels, so that no ranking changes. A temperature alone
does not do: of hundreds of labels nearly all are lacking, and dividing their scores makes these
likelier. Scores are counted in narrow bins, so that 670,091 labels of every example need no memory.
NumPy alone; nothing here knows a model.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_BINS = 8192
_UNIT = 1e-3  # scores are told apart by this near zero, by half a percent of themselves elsewhere
_STEP = 2 * np.arcsinh(1e7) / _BINS
_MOST = 1e4  # of T, and of 1 / T


class Scaling(NamedTuple):
    """sigmoid(z / temperature + offset) is the probability of a label with the score z."""

    temperature: float
    offset: float

    def logits(self, scores: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The logarithms of the odds, in float64."""
        return np.asarray(scores, np.float64) / self.temperature + self.offset

    def probabilities(self, scores: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Of labels with these scores, in float64."""
        return _sigmoid(self.logits(scores))


@dataclasses.dataclass(frozen=True)
class ScoreCounts:
    """The scores of all labels of some examples, in narrow bins.

    Two can be added; the sum is that of all their examples.

    Attributes:
        examples: number of examples.
        every: scores in each bin [bins].
        every_sum: their sum [bins].
        held: of those, the scores of labels that their example has [bins].
        held_sum: the sum of these [bins].
    """

    examples: int
    every: Float[np.ndarray, " bins"]
    every_sum: Float[np.ndarray, " bins"]
    held: Float[np.ndarray, " bins"]
    held_sum: Float[np.ndarray, " bins"]

    @classmethod
    def of(
        cls, scores: Float[np.ndarray, "examples labels"], held: Bool[np.ndarray, "examples labels"]
    ) -> "ScoreCounts":
        """Of scores, and which of the labels each example has.

        Raises:
            FloatingPointError: a score is not finite.
        """
        z = np.asarray(scores, np.float64)
        if not np.isfinite(z).all():
            raise FloatingPointError("a score is not finite")
        place = np.clip(np.arcsinh(z / _UNIT) / _STEP + _BINS / 2, 0, _BINS - 1).astype(np.int32)

        def summed(some: np.ndarray, values: np.ndarray | None) -> np.ndarray:
            return np.bincount(some.ravel(), values, minlength=_BINS).astype(np.float64)

        own, at = z[held], place[held]
        return cls(
            len(z), summed(place, None), summed(place, z.ravel()), summed(at, None), summed(at, own)
        )

    def __add__(self, other: "ScoreCounts") -> "ScoreCounts":
        return ScoreCounts(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            )
        )

    def replaced(self, by: Callable[[np.ndarray], np.ndarray]) -> "ScoreCounts":
        """The same with other scores: `by` of them, bin by bin."""
        z = by(self._means)
        return dataclasses.replace(self, every_sum=self.every * z, held_sum=self.held * z)

    def log_loss(self, scaling: Scaling) -> float:
        """Sum over examples and labels of the binary cross-entropy, in nats."""
        held = self.held_sum.sum() / scaling.temperature + self.held.sum() * scaling.offset
        return float(self.every @ np.logaddexp(0, scaling.logits(self._means)) - held)

    def squares(self, scaling: Scaling) -> float:
        """Sum over examples and labels of (probability - truth)²."""
        p = scaling.probabilities(self._means)
        return float(self.every @ p**2 + self.held @ (1 - 2 * p))

    @property
    def _means(self) -> Float[np.ndarray, " bins"]:
        """The mean score in each bin."""
        return self.every_sum / np.maximum(self.every, 1)


def fit_scaling(counts: ScoreCounts) -> Scaling:
    """The scaling that gives held-out examples the least binary cross-entropy.

    Targets are not quite certain: (n + 1) / (n + 2) of n labels that examples have, 1 / (m + 2) of
    m that they lack (Platt, 1999), so that scores which tell these apart need no infinite T.

    Raises:
        ValueError: there are no examples.
    """
    if not counts.examples:
        raise ValueError("counts must be of at least 1 example, got 0")
    used = counts.every > 0
    every, z = counts.every[used], counts.every_sum[used] / counts.every[used]
    held = counts.held[used]
    n, m = held.sum(), every.sum() - held.sum()
    wanted = held * (n + 1) / (n + 2) + (every - held) / (m + 2)
    ones = np.stack([z, np.ones_like(z)])

    def loss(a: np.ndarray) -> float:
        return float(every @ np.logaddexp(0, a @ ones) - wanted @ (a @ ones))

    # Newton's method; the loss is convex.
    a = np.array([1.0, 0.0])
    for _ in range(100):
        p = _sigmoid(a @ ones)
        slope = ones @ (every * p - wanted)
        curvature = (ones * (every * np.maximum(p * (1 - p), 1e-12))) @ ones.T
        step = np.linalg.solve(curvature + 1e-9 * np.trace(curvature) * np.eye(2), slope)
        before, length = loss(a), 1.0
        while loss(a - length * step) > before and length > 1e-6:
            length /= 2
        a = a - length * step
        if np.abs(length * step).max() < 1e-9 * (1 + np.abs(a).max()):
            break
    return Scaling(float(1 / np.clip(a[0], 1 / _MOST, _MOST)), float(a[1]))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -z))
