"""One training as every side of the comparison does it: network, strategy, order of examples."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from experiments.command.options import HeadOptions, StrategyOptions
from experiments.runs.heads import build_strategy
from jist.data.order import steps_until, worker_order
from jist.ist import crossed, partition
from jist.strategies import Strategy


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """A head, its strategy, and the examples.

    Attributes:
        head: how the head is trained.
        how: the strategy, and its number of workers.
        seed: decides initial values, partitions and order.
        classes: number of classes C.
        examples: {"x": [N, D], "y": [N]}.
    """

    head: HeadOptions
    how: StrategyOptions
    seed: int
    classes: int
    examples: dict[str, np.ndarray]

    @functools.cached_property
    def strategy(self) -> Strategy:
        """The strategy, on the devices that there are."""
        inputs = self.examples["x"].shape[1]
        return build_strategy(inputs, self.classes, self.head, self.how, self.seed)

    @property
    def batch_size(self) -> int:
        """Examples B in a worker's batch."""
        return self.head.batch_of(self.how.workers, len(self.examples["y"]))

    @property
    def most_rounds(self) -> int:
        """Whole rounds in the epochs, at least one."""
        shape = {"workers": self.how.workers, "batch_size": self.batch_size}
        steps = steps_until(self.head.epochs, examples=len(self.examples["y"]), **shape)
        return max(1, steps // self.how.local_steps)

    def order(self, number: int) -> Any:
        """The examples of each worker in a round, i32 [workers, steps, B]."""
        return worker_order(
            self.seed,
            examples=len(self.examples["y"]),
            workers=self.how.workers,
            batch_size=self.batch_size,
            first_step=number * self.how.local_steps,
            steps=self.how.local_steps,
        )

    def partitions(self, rounds: int) -> list[list[np.ndarray]]:
        """The neurons of each worker [workers, part], for every hidden layer of every round."""
        layers = {f"hidden{i}": width for i, width in enumerate(self.head.hidden, 1)}
        keys = [jax.random.fold_in(jax.random.key(self.seed), number) for number in range(rounds)]
        workers = self.how.workers
        if self.how.partition == "crossed":
            drawn = crossed.rounds(keys, layers, workers)
        else:
            drawn = [partition(key, layers, workers, self.how.partition) for key in keys]
        return [[np.asarray(parts[layer]) for layer in layers] for parts in drawn]
