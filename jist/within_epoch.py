"""The rounds of an epoch, and checkpoints between them: an epoch of hours is not lost.

They lie in `within-epoch/` beside the checkpoints of epochs, numbered by the step that was reached.
One is kept, of the epoch that is under way; none is when a training has ended. Which epoch is the
last or the best they do not decide.
"""

import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jist.checkpoint import CheckpointError, Checkpoints
from jist.data.on_disk import Streamed
from jist.placement import place
from jist.ragged import take
from jist.recovery import epochs_in
from jist.strategies import State, Strategy
from jist.tasks import Examples

NAME = "within-epoch"
logger = logging.getLogger(__name__)


class Begun(NamedTuple):
    """An epoch that is under way.

    Attributes:
        state: of the strategy.
        losses: sum over the epoch's steps so far of each worker's loss [workers].
        step: that comes next.
        seconds: that the epoch has taken.
    """

    state: State
    losses: Float[Array, " workers"]
    step: int
    seconds: float = 0.0


class WithinEpoch:
    """The checkpoints between rounds; a context manager, which removes them if all ends well.

    Args:
        directory: that of the checkpoints of epochs.
        every: rounds between them; None for none.
        of: description of the training, as of `jist.checkpoint.Checkpoints`.
    """

    def __init__(self, directory: pathlib.Path, every: int | None, of: Mapping[str, Any]):
        self._directory = directory.absolute() / NAME
        self._every, self._of = every, of
        self._open: Checkpoints | None = None

    def begun(self, start: Begun, last: int) -> Begun:
        """Where an epoch goes on: at its checkpoint if there is a whole one, else at its start.

        Args:
            start: the epoch's start.
            last: the step at which it ends.

        Raises:
            ValueError: the checkpoint is of another training.
        """
        steps = epochs_in(self._directory)
        if steps and steps[-1] >= last:  # the checkpoint of an epoch in between was damaged
            self._remove()
            return start
        if not steps or steps[-1] <= start.step:  # of an epoch that is finished: replaced later
            return start
        saved = self._checkpoints()
        try:
            found = saved.restore({"state": start.state, "losses": start.losses}, steps[-1])
        except CheckpointError as error:
            logger.warning("%s; its epoch begins anew", error)
            self._remove()
            return start
        seconds = saved.metrics(steps[-1]).get("seconds", 0.0)
        return Begun(found["state"], found["losses"], steps[-1], seconds)

    def save(self, reached: Begun, rounds: int, before: Callable[[], None]) -> None:
        """Saves, if it is time to, what was reached; nothing that is not finite.

        Args:
            reached: the epoch so far.
            rounds: that it has had.
            before: called first; waits for the checkpoint of the epoch before.
        """
        if not self._every or rounds % self._every or not np.isfinite(reached.losses).all():
            return
        before()
        state = {"state": reached.state, "losses": reached.losses}
        self._checkpoints().save(reached.step, state, {"seconds": round(reached.seconds, 3)})

    def _checkpoints(self) -> Checkpoints:
        if self._open is None:
            self._open = Checkpoints(self._directory, metric=None, of=self._of)
        return self._open

    def _close(self) -> None:
        still, self._open = self._open, None
        if still is not None:
            still.close()

    def _remove(self) -> None:
        self._close()
        multihost_utils.sync_global_devices("checkpoints within an epoch are of no more use")
        if jax.process_index() == 0:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> "WithinEpoch":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._remove()
        else:
            self._close()


def run_epoch(
    strategy: Strategy,
    begun: Begun,
    examples: Examples,
    order: Callable[..., Any],
    first: int,
    last: int,
    save: Callable[[Begun, int], None] | None = None,
) -> tuple[State, Float[np.ndarray, " workers"]]:
    """Runs an epoch's rounds to its end.

    Of examples on disk those of a round are read while the round before is computed, in the order
    in which they lie there; those of the round after are announced to the system.

    Args:
        strategy: how the workers train.
        begun: where the epoch stands.
        examples: tree of arrays [N, ...], on devices or on disk.
        order: gives the rows of some steps, as `jist.data.order.worker_order`.
        first: the epoch's first step.
        last: the step at which it ends.
        save: called between two rounds with what was reached and the number of rounds.

    Returns:
        The state, and each worker's mean loss over the epoch.
    """
    start = time.perf_counter() - begun.seconds
    streamed = any(isinstance(leaf, Streamed) for leaf in jax.tree.leaves(examples))
    state, total, before = begun.state, begun.losses, None
    by_worker = NamedSharding(strategy.mesh, P("workers"))
    for step in range(begun.step, last, strategy.local_steps):
        steps = min(strategy.local_steps, last - step)
        rows = order(first_step=step, steps=steps)
        some = examples
        if streamed:
            wanted, rows = _sorted(rows)
            some = placed(take(examples, wanted), strategy)
            _announce(examples, order(first_step=step + 2 * strategy.local_steps, steps=steps))
        state, metrics = strategy.round(state, some, place(rows, by_worker))
        if streamed:  # no more than two rounds' examples are in memory
            jax.block_until_ready(before)
            before = metrics["loss"]
        total = total + steps * metrics["loss"]
        if save is not None and step + steps < last:
            rounds = (step + steps - first) // strategy.local_steps
            reached = Begun(state, total, step + steps, time.perf_counter() - start)
            save(reached, rounds)
    return state, np.asarray(total) / (last - first)


def _sorted(rows: Int[np.ndarray, "..."]) -> tuple[Int[np.ndarray, " all"], np.ndarray]:
    """Numbers of rows, ascending, and where those of a round are among them."""
    by_number = np.argsort(rows, axis=None, kind="stable")
    places = np.empty(rows.size, np.int32)
    places[by_number] = np.arange(rows.size, dtype=np.int32)
    return rows.ravel()[by_number], places.reshape(rows.shape)


def _announce(examples: Examples, rows: Int[np.ndarray, "..."]) -> None:
    for leaf in jax.tree.leaves(examples):
        if isinstance(leaf, Streamed):
            leaf.announce(rows.ravel())


def placed(examples: Examples, strategy: Strategy) -> Examples:
    """Examples on all devices of a strategy."""
    return jax.tree.map(lambda x: place(x, strategy.replicated), examples)
