"""Recipes for training n workers: how a search varies and scores them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

# When n workers are compared with one: after as many examples of all together, or of each.
TOTAL, EACH = "equal examples in total", "equal examples per worker"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How n workers are trained."""

    learning_rate: float
    local_steps: int
    optimizer_state: str
    norm: str
    hidden: tuple[int, ...]

    def __str__(self) -> str:
        widths = "-".join(map(str, self.hidden))
        return (
            f"rate-{self.learning_rate:g}-steps-{self.local_steps}-{self.optimizer_state}"
            f"-{self.norm}-{widths}"
        )


@dataclasses.dataclass(frozen=True)
class Score:
    """The epoch that the task's metric on the validation examples chooses, and the metric there."""

    epoch: int
    validation: float
    test: float
    metric: str = "accuracy"


def varied(start: Recipe, tried: Mapping[str, Sequence[Any]]) -> list[Recipe]:
    """A recipe, and those that differ from it in one option, without duplicates."""
    changed = [
        dataclasses.replace(start, **{option: value})
        for option, values in tried.items()
        for value in values
    ]
    return list(dict.fromkeys([start, *changed]))


def combined(recipes: list[Recipe], scores: dict[Recipe, Score]) -> Recipe:
    """The default recipe, the first one, with every option's best value."""
    start, *changed = recipes
    best: dict[str, Any] = {}
    for field in dataclasses.fields(Recipe):
        of_field = [r for r in changed if getattr(r, field.name) != getattr(start, field.name)]
        winner = max([start, *of_field], key=lambda r: scores[r].validation)
        best[field.name] = getattr(winner, field.name)
    return Recipe(**best)


def score(curve: list[dict[str, Any]], epochs: int, metric: str = "accuracy") -> Score:
    """The best of the first epochs by the validation examples, the earliest of equals.

    Args:
        curve: the metrics of every epoch.
        epochs: how many of the first epochs count.
        metric: the task's, of which more is better.
    """
    best = max(
        (metrics for metrics in curve if metrics["epoch"] <= epochs),
        key=lambda metrics: metrics[f"validation_{metric}"],
    )
    return Score(best["epoch"], best[f"validation_{metric}"], best[f"test_{metric}"], metric)
