"""Checkpoints of a run, through Orbax; the only file that knows it.

A checkpoint is written in the background under a temporary name and renamed when it is whole, so a
run that is killed at any moment leaves only whole checkpoints behind (`jist.recovery` removes what
it had no time to remove). The digests of its files are noted then, and checked before Orbax reads
them (`jist.digests`).
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jist.digests import write_digests
from jist.reasons import shortened
from jist.recovery import check_whole, epochs_in, read_metrics, set_right

Tree = TypeVar("Tree")


class CheckpointError(Exception):
    """A checkpoint is missing, is damaged, or cannot be written."""


class Checkpoints:
    """The checkpoints of one run: the last epochs and the best one.

    Use it as a context manager, or call `close`, so that a checkpoint still being written is
    finished.

    Args:
        directory: where they are, one directory each, named by the epoch; made if missing.
        metric: the metric whose best value makes an epoch the best, the first of equals; None if
            none does. A value that is not a number is worse than any.
        higher_is_better: whether its highest value is the best one, or its lowest.
        keep: how many of the last epochs to keep, beside the best.
        of: description of the training, saved with each checkpoint and compared on reading: a
            state of another training may have the same shapes.
        must_exist: only read; neither create the directory nor clean it up.

    Raises:
        CheckpointError: the directory must exist and does not, it cannot be made, or the metrics of
            a checkpoint are damaged.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        metric: str | None = "test_accuracy",
        higher_is_better: bool = True,
        keep: int = 1,
        of: Mapping[str, Any] | None = None,
        must_exist: bool = False,
    ):
        self.directory = pathlib.Path(directory).absolute()
        if must_exist and not self.directory.is_dir():
            raise CheckpointError(f"no checkpoints: {directory} is not a directory")
        self._metric, self._of = metric, dict(of or {})
        self._sign = 1 if higher_is_better else -1
        self._writing: Any = None  # Orbax's handle of the last save
        self._checked: int | None = None  # an epoch whose files were found whole
        if not must_exist:
            with _errors_of(self.directory, f"cannot use checkpoints={self.directory}"):
                self._set_right(keep)
        # Orbax's policies do not fit its own annotations of them.
        decide: Any = ocp.training.save_decision_policies
        preserve: Any = ocp.training.preservation_policies
        kept = [preserve.LatestN(keep)]
        if metric is not None:
            # Of equal metrics Orbax keeps the last by default, not the first.
            better = lambda m: (self._merit(m), -m.get("epoch", 0))  # noqa: E731
            kept.append(preserve.BestN(get_metric_fn=better, n=1))
        with _errors_of(self.directory, f"cannot use checkpoints={self.directory}"):
            self._checkpointer = ocp.training.Checkpointer(
                str(self.directory),
                save_decision_policy=decide.FixedIntervalPolicy(1),
                preservation_policy=preserve.AnyPreservationPolicy(kept),
                # A reader must not delete temporary files: another program may be writing them.
                cleanup_tmp_directories=not must_exist,
            )

    def _set_right(self, keep: int) -> None:
        """Undoes what a kill or damage left behind, by the first of many processes."""
        if jax.process_index() == 0:
            merit = None if self._metric is None else self._merit
            self._checked = set_right(self.directory, keep=keep, merit=merit)
        multihost_utils.sync_global_devices("checkpoints are set right")

    @property
    def last(self) -> int | None:
        """The last epoch that has a checkpoint; None if there is none."""
        return max(self._metrics(), default=None)

    @property
    def best(self) -> int | None:
        """The first of the kept epochs with the best metric; None if there is none."""
        metrics = self._metrics()
        return max(metrics, key=lambda epoch: (metrics[epoch], -epoch), default=None)

    def metrics(self, epoch: int | None) -> dict[str, Any]:
        """The numbers saved with a checkpoint; none of an epoch that has none."""
        return {} if epoch is None else self._all_metrics().get(epoch, {})

    def _all_metrics(self) -> dict[int, dict[str, Any]]:
        with _errors_of(self.directory, f"cannot read checkpoints={self.directory}"):
            read: dict[int, Any] = {c.step: c.metrics for c in self._checkpointer.checkpoints}
            return {step: dict(metrics or {}) for step, metrics in read.items()}

    def _metrics(self) -> dict[int, float]:
        found = self._all_metrics()
        with _errors_of(self.directory, f"cannot read checkpoints={self.directory}"):
            return {step: self._merit(metrics) for step, metrics in found.items()}

    def _merit(self, metrics: Mapping[str, Any]) -> float:
        """The higher the better, whatever the metric's direction."""
        value = self._sign * float(metrics.get(self._metric or "", math.nan))
        return -math.inf if math.isnan(value) else value

    def save(self, epoch: int, state: Any, metrics: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint and returns as soon as `state` has been copied.

        Args:
            epoch: its number.
            state: tree of arrays; typed PRNG keys are allowed.
            metrics: numbers kept with it, the metric of this object among them.

        Raises:
            ValueError: the metric is not among them.
            CheckpointError: the previous checkpoint could not be written.
        """
        if self._metric is not None and self._metric not in metrics:
            raise ValueError(f"metrics must hold {self._metric!r}, got {sorted(metrics)}")
        copy = jax.tree.map(lambda leaf: _copied(_untyped(leaf)), state)
        self.wait()
        with _errors_of(self.directory, f"cannot write the checkpoint of epoch {epoch}"):
            self._writing = self._checkpointer.save_async(
                epoch, copy, metrics={**metrics, "epoch": epoch}, custom_metadata=self._of or None
            )
            if self._writing is not None and jax.process_index() == 0:
                self._writing.on_complete(lambda _: self._note_digests(epoch))

    def _note_digests(self, epoch: int) -> None:
        # Without digests (the disk may be full) a checkpoint is read without checking its files,
        # like those of earlier versions.
        with contextlib.suppress(OSError):
            write_digests(self.directory / str(epoch))

    def wait(self) -> None:
        """Waits for the checkpoint that is being written, and raises if that failed.

        Orbax gives each save its own event loop, which keeps a thread and three file descriptors
        until its result is requested.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            with _errors_of(self.directory, f"cannot write a checkpoint to {self.directory}"):
                writing.result()

    def restore(self, like: Tree, epoch: int | None = None) -> Tree:
        """Reads a checkpoint.

        Args:
            like: a state of the same structure; arrays come back with its shapes, types and
                shardings, so a checkpoint moves between numbers of devices.
            epoch: which; the last by default.

        Raises:
            CheckpointError: there is none, or it cannot be read.
            ValueError: it belongs to another training (see `of`).
        """
        epoch = self.last if epoch is None else epoch
        if epoch is None or epoch not in self._metrics():
            raise CheckpointError(
                f"no checkpoint {'at all' if epoch is None else f'of epoch {epoch}'} in "
                f"{self.directory}; there are {sorted(self._metrics())}"
            )
        directory = self.directory / str(epoch)
        damaged = f"the checkpoint {directory} is damaged or of another model"
        if epoch != self._checked:
            with _errors_of(self.directory, damaged):
                check_whole(directory)
        self._check_origin(epoch)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            jax.tree.map(_untyped, like),
        )
        with _errors_of(self.directory, damaged):
            loaded = self._checkpointer.load(epoch, target)
        return jax.tree.map(_retyped, loaded, like)

    def _check_origin(self, epoch: int) -> None:
        there: Any
        try:
            there = self._checkpointer.checkpointables_metadata(epoch).custom_metadata or {}
        except Exception:  # it is damaged; reading its arrays says how
            return
        differ = [
            f"{name} is {there[name]!r} there and {here!r} here"
            for name, here in self._of.items()
            if there.get(name, here) != here
        ]
        if differ:
            raise ValueError(
                f"checkpoints={self.directory} are of another training; choose another directory "
                f"or remove it: {'; '.join(differ)}"
            )

    def close(self) -> None:
        """Waits for the checkpoint that is being written."""
        try:
            self.wait()
        finally:
            with _errors_of(self.directory, f"cannot write a checkpoint to {self.directory}"):
                self._checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def save(directory: str | os.PathLike, epoch: int, state: Any, metrics: Mapping[str, Any]) -> None:
    """Writes one checkpoint and waits for it; arguments and errors as for `Checkpoints.save`.

    Of the epochs in the directory the last and the best by "test_accuracy" are kept.
    """
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(epoch, state, metrics)


def restore(directory: str | os.PathLike, like: Tree, epoch: int | None = None) -> Tree:
    """Reads one checkpoint, the last by default; arguments and errors as `Checkpoints.restore`."""
    with Checkpoints(directory, must_exist=True) as checkpoints:
        return checkpoints.restore(like, epoch)


@contextlib.contextmanager
def _errors_of(directory: pathlib.Path, what: str) -> Iterator[None]:
    """Turns any error of Orbax and its file readers into a one-line `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        damaged = _damaged_metrics(directory)
        at = f" ({damaged} is no JSON object of numbers)" if damaged else ""
        raise CheckpointError(
            f"{what}: {type(error).__name__}: {shortened(first.strip(), 250)}{at}"
        ) from error


def _damaged_metrics(directory: pathlib.Path) -> pathlib.Path | None:
    """The first damaged file of metrics, to be named in the error message."""
    for epoch in epochs_in(directory):
        try:
            read_metrics(directory / str(epoch))
        except (OSError, ValueError):
            return directory / str(epoch) / "metrics" / "metrics"
    return None


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _copied(leaf: Any) -> Any:
    """A copy, because the next round overwrites the donated state while it is being written.

    What every device holds whole goes to the host, for which nothing need be compiled: Orbax would
    cut a replicated array among the devices, by a program for every piece.
    """
    whole = getattr(leaf, "is_fully_replicated", True)
    return np.array(leaf) if whole else jnp.copy(leaf)


def _untyped(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _retyped(leaf: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf
