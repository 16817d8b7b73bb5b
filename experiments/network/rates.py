"""A learning rate of its own for every strategy, chosen on held-out training examples.

One rate for all favours the strategy that it was chosen for. Each strategy takes the rate by which
it needs the fewest rounds to the highest target, on a tenth of the training examples that is
trained on only afterwards.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.network.curves import learned
from experiments.network.training import Training
from experiments.runs.directory import read_json, write_json

HELD_OUT = 10  # one example in so many


def choose(
    training: Training, rates: Sequence[float], target: float, directory: pathlib.Path
) -> tuple[float, dict[str, Any]]:
    """The rate with the fewest rounds to an accuracy; if none comes there, the most accurate.

    Args:
        training: what is trained; its own rate does not count.
        rates: learning rates to choose from.
        target: accuracy on the held-out examples after which nothing more is trained. No rate is
            trained for more rounds than the best before it needed.
        directory: where what was learned by each rate is kept; what is there is taken.

    Returns:
        The rate, and by rate {"accuracies" (after every round), "rounds" (to the target, or
        None)}.
    """
    train, held = held_out(training.examples, training.seed)
    found: dict[str, Any] = {}
    for rate in rates:
        head = dataclasses.replace(training.head, learning_rate=rate)
        file = directory / f"{rate:g}.json"
        if file.exists():
            accuracies = read_json(file)["accuracies"]
        else:
            own = dataclasses.replace(training, head=head, examples=train)
            most = min((of["rounds"] for of in found.values() if of["rounds"]), default=None)
            accuracies = learned(own, held, target, most_rounds=most)[0]["accuracies"]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"accuracies": accuracies})
        rounds = next((n for n, of in enumerate(accuracies, 1) if of >= target), None)
        found[f"{rate:g}"] = {"accuracies": accuracies, "rounds": rounds}
    return min(rates, key=lambda rate: _order(found[f"{rate:g}"])), found


def held_out(
    examples: dict[str, np.ndarray], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training examples without some that are drawn, and those."""
    count = len(examples["y"])
    order = np.random.default_rng(seed).permutation(count)
    drawn = max(1, count // HELD_OUT)
    return (
        {name: array[order[drawn:]] for name, array in examples.items()},
        {name: array[order[:drawn]] for name, array in examples.items()},
    )


def _order(of: dict[str, Any]) -> tuple[float, float]:
    reached = of["accuracies"][of["rounds"] - 1] if of["rounds"] else max(of["accuracies"])
    return of["rounds"] or math.inf, -reached
