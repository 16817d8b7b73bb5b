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
    """The epoch of a training that its validation accuracy chooses."""

    epoch: int
    validation_accuracy: float
    test_accuracy: float


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
        winner = max([start, *of_field], key=lambda r: scores[r].validation_accuracy)
        best[field.name] = getattr(winner, field.name)
    return Recipe(**best)


def score(curve: list[dict[str, Any]], epochs: int) -> Score:
    """The best of the first epochs by validation accuracy, the earliest of equals."""
    best = max(
        (metrics for metrics in curve if metrics["epoch"] <= epochs),
        key=lambda metrics: metrics["validation_accuracy"],
    )
    return Score(best["epoch"], best["validation_accuracy"], best["test_accuracy"])
