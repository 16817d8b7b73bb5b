"""What a head gets right and wrong, class by class."""

import dataclasses
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from jist.probabilities import log_probabilities

_AT_ONCE = 8192  # probabilities are in float64


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions of a head.

    Attributes:
        label: true classes [N].
        predicted: predicted ones [N].
        probability: of the predicted class [N].
    """

    label: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray

    def mistakes(self, most: int) -> np.ndarray:
        """The examples that are predicted wrongly, the surest first, at most so many."""
        wrong = np.flatnonzero(self.label != self.predicted)
        return wrong[np.argsort(-self.probability[wrong], kind="stable")][:most]


def predictions_of(
    logits: np.ndarray, labels: np.ndarray, temperature: float | None
) -> Predictions:
    """The predictions that logits [N, C] make; probabilities are of the temperature."""
    sure = [
        np.exp(log_probabilities(logits[first : first + _AT_ONCE], temperature or 1.0).max(axis=1))
        for first in range(0, len(logits), _AT_ONCE)
    ]
    return Predictions(labels, logits.argmax(axis=1), np.concatenate(sure))


def by_class(found: Predictions, class_names: list[str]) -> dict[str, Any]:
    """Accuracy, precision, recall, F1 and number of examples of every class, and confusions.

    Returns:
        "class_accuracy": None of a class without examples; "classes": name -> {"precision",
        "recall", "f1", "examples"}, 0 where nothing is predicted or there; "confusion": counts, a
        row for each true class and a column for each predicted one.
    """
    labels = range(len(class_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        found.label,
        found.predicted,
        labels=labels,
        zero_division=0,  # pyright: ignore[reportArgumentType]  # its annotation names "warn" alone
    )
    columns = {"precision": precision, "recall": recall, "f1": f1, "examples": support}
    classes = {
        name: {column: values[i].item() for column, values in columns.items()}
        for i, name in enumerate(class_names)
    }
    return {
        "class_accuracy": {
            name: of["recall"] if of["examples"] else None for name, of in classes.items()
        },
        "classes": classes,
        "confusion": confusion_matrix(found.label, found.predicted, labels=labels).tolist(),
    }
