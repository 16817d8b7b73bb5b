"""Probabilities of trained heads: the examples of the temperature, and how true they are."""

import dataclasses
from typing import Any

import numpy as np

from experiments.command.options import HeadOptions
from experiments.runs.splits import ClassSplit, ManyLabelSplit, Split
from jist.probabilities import Reliability

# Of fewer held-out examples a temperature is noise, and fewer training examples cannot spare them.
FEWEST = 50
MOST_SHARE = 0.05
_AT_ONCE = 8192


def spared_count(examples: int, calibration: int) -> int:
    """How many of the training examples are held out for the temperature alone, if so many may."""
    number = min(calibration, int(MOST_SHARE * examples))
    return number if number >= FEWEST else 0


def spared_rows(split: Split, head: HeadOptions, seed: int) -> np.ndarray:
    """Which training examples these are, bool [N]: about the same share of every class."""
    number = 0 if head.validation else spared_count(len(split), head.calibration)
    if not number or not isinstance(split, ClassSplit | ManyLabelSplit):
        return np.zeros(len(split), bool)
    return split.spared(number / len(split), seed)


@dataclasses.dataclass(frozen=True)
class Truth:
    """How true the probabilities of a head are on some examples, before and after a correction.

    Attributes:
        temperature: that of the head, None if none was fitted.
        raw: of the head's logits as they are.
        by_workers: of the logits divided by the number of workers: the output layer sums over the
            neurons of all workers, and in training heard those of one. None of many labels.
        calibrated: of the logits divided by the temperature.
        offset: what is added to logits divided by the temperature, of many labels.
    """

    temperature: float | None
    raw: Reliability
    by_workers: Reliability | None
    calibrated: Reliability | None
    offset: float | None = None

    @property
    def best(self) -> Reliability:
        """That of the probabilities which the run gives."""
        return self.raw if self.calibrated is None else self.calibrated

    @property
    def named(self) -> dict[str, Reliability]:
        """All by name, in the order of the attributes."""
        found = {
            "uncalibrated": self.raw,
            "divided by workers": self.by_workers,
            "calibrated": self.calibrated,
        }
        return {name: of for name, of in found.items() if of is not None}

    @property
    def fitted(self) -> dict[str, float | None]:
        """Temperature and, of many labels, offset."""
        offset = {} if self.offset is None else {"offset": self.offset}
        return {"temperature": self.temperature} | offset


def truth_of(
    logits: np.ndarray, labels: np.ndarray, workers: int, temperature: float | None
) -> Truth:
    """Measures a classifier, some examples at a time.

    Args:
        logits: of the full network, in evaluation mode [N, C].
        labels: the classes [N].
        workers: that trained it.
        temperature: of its checkpoint.
    """
    divisors = {"raw": 1.0, "by_workers": float(workers), "calibrated": temperature}
    sums: dict[str, Any] = dict.fromkeys(divisors)
    for first in range(0, len(logits), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        for name, divisor in divisors.items():
            if divisor is not None:
                found = Reliability.of(logits[part], labels[part], divisor)
                sums[name] = found if sums[name] is None else sums[name] + found
    return Truth(temperature=temperature, **sums)


def results_of(truth: Truth) -> dict[str, Any]:
    """The measures as fields of a result: of the last epoch, calibrated, and before."""
    fields: dict[str, Any] = {**truth.fitted}
    fields |= {f"last_test_{name}": value for name, value in truth.best.metrics.items()}
    return fields | {"last_test_ece_uncalibrated": truth.raw.ece}
