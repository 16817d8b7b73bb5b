"""Whether a classifier's probabilities are true: temperature scaling, and what is measured of it.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks (ICML 2017). A classifier is
calibrated if of the predictions made with probability p a share p is right. Dividing all logits by
one number, the temperature T, changes no prediction and makes most networks nearly calibrated. T is
fitted on examples that the network was not trained on. NumPy alone; nothing here knows a model.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15
_MOST = 1e4  # of T, and of 1 / T


def fit_temperature(
    logits: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, " examples"]
) -> float:
    """The temperature that gives held-out examples the least negative log-likelihood.

    Targets are not quite certain: of N examples each class has the probability 1 / (N + 1) / C
    beside its share, as if one more example were of all classes alike (after Platt, 1999). Without
    it T would be zero where every held-out example is classified rightly.

    Args:
        logits: of examples that were not trained on.
        labels: their classes.

    Returns:
        T in [1e-4, 1e4]; logits / T are calibrated.

    Raises:
        ValueError: there are no examples, or logits are not finite.
    """
    if not len(logits):
        raise ValueError("logits must be of at least 1 example, got 0")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=1, keepdims=True)
    certain = len(z) / (len(z) + 1)
    targets = certain * z[np.arange(len(z)), labels] + (1 - certain) * z.mean(axis=1)
    wanted = targets.mean()
    # The likelihood is concave in 1 / T: its derivative falls and is zero once.
    low, high = 1 / _MOST, _MOST
    for _ in range(60):
        middle = np.sqrt(low * high)
        weights = np.exp(middle * z)
        found = np.mean(np.sum(weights * z, axis=1) / np.sum(weights, axis=1))
        low, high = (middle, high) if found < wanted else (low, middle)
    return float(1 / np.sqrt(low * high))


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How true the probabilities of some predictions are.

    Two can be added; the sum is that of all their examples.

    Attributes:
        count: predictions in every bin [bins]. Bin i is of the predictions whose probability, that
            of the predicted class, lies in (i / bins, (i + 1) / bins].
        confidence: sum of these probabilities in every bin [bins].
        correct: how many are right [bins].
        examples: number of examples: of classes as many as predictions.
        log_loss: sum of the negative log-likelihoods of the true classes, in nats.
        squares: sum over examples and classes of (probability - truth)².
    """

    count: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    correct: Int[np.ndarray, " bins"]
    examples: int
    log_loss: float
    squares: float

    @classmethod
    def of(
        cls,
        logits: Float[np.ndarray, "examples classes"],
        labels: Int[np.ndarray, " examples"],
        temperature: float = 1.0,
        bins: int = BINS,
    ) -> "Reliability":
        """Of the predictions that logits make, divided by a temperature."""
        log_p = log_probabilities(logits, temperature)
        p = np.exp(log_p)
        rows = np.arange(len(p))
        truth = p[rows, labels]
        return cls(
            *_binned(p.max(axis=1), np.argmax(logits, axis=1) == labels, bins),
            examples=len(p),
            log_loss=float(-log_p[rows, labels].sum()),
            squares=float(np.sum(p**2) - np.sum(truth**2) + np.sum((1 - truth) ** 2)),
        )

    @classmethod
    def of_labels(
        cls,
        probabilities: Float[np.ndarray, "examples k"],
        right: Bool[np.ndarray, "examples k"],
        log_loss: float,
        squares: float,
        bins: int = BINS,
    ) -> "Reliability":
        """Of the k likeliest labels of examples that may have several.

        Args:
            probabilities: of these labels.
            right: which of them the example has.
            log_loss: sum over examples and all labels of the binary cross-entropy, in nats.
            squares: sum over examples and all labels of (probability - truth)².
            bins: number of bins.
        """
        binned = _binned(probabilities.ravel(), right.ravel(), bins)
        return cls(*binned, examples=len(right), log_loss=log_loss, squares=squares)

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in dataclasses.fields(self)
            )
        )

    @functools.cached_property
    def total(self) -> int:
        """Number of predictions."""
        return int(self.count.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |confidence - accuracy| of a prediction's bin."""
        return float(np.abs(self.confidence - self.correct).sum() / self.total)

    @property
    def metrics(self) -> dict[str, float]:
        """Expected calibration error "ece", log-likelihood "nll" in nats, "brier" in [0, 2]."""
        return {
            "ece": self.ece,
            "nll": self.log_loss / self.examples,
            "brier": self.squares / self.examples,
        }

    @property
    def bins(self) -> list[dict[str, float | int]]:
        """Mean confidence and accuracy of every bin that is not empty, and its count."""
        return [
            {"count": int(n), "confidence": float(c / n), "accuracy": float(r / n)}
            for n, c, r in zip(self.count, self.confidence, self.correct, strict=True)
            if n
        ]


def _binned(
    probabilities: Float[np.ndarray, " predictions"],
    right: Bool[np.ndarray, " predictions"],
    bins: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, sum of probabilities, and number of right ones, of every bin."""
    # Of 1e-12 less, so that a probability at an edge falls below it in spite of rounding.
    of_bin = np.clip(np.ceil(probabilities * bins - 1e-12).astype(int) - 1, 0, bins - 1)
    return (
        np.bincount(of_bin, minlength=bins),
        np.bincount(of_bin, probabilities, minlength=bins),
        np.bincount(of_bin[right], minlength=bins),
    )


def log_probabilities(
    logits: Float[np.ndarray, "examples classes"], temperature: float = 1.0
) -> Float[np.ndarray, "examples classes"]:
    """The logarithms of softmax(logits / temperature), in float64."""
    z = np.asarray(logits, np.float64) / temperature
    with np.errstate(invalid="ignore"):  # of logits that are not finite neither is the result
        z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
