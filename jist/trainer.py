"""The training loop of all strategies: rounds, evaluation, checkpoints, metrics, progress.

In an epoch all workers together see as many examples as the data set has; its last round may be
shorter. After each epoch every neuron's deployed statistics are measured on the full network over
some training examples (VLDB 2022, §2.2), the network is evaluated, and the state is saved.
Interrupted anywhere, the same call resumes and ends with the same bits; on a GPU with
XLA's `--xla_gpu_deterministic_ops=true`.

Under `jax.distributed` every process makes the same call with the same examples; checkpoints are on
a file system that all of them share.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float
from rich.progress import Progress

from jist.checkpoint import Checkpoints
from jist.data.order import steps_until, worker_order
from jist.evaluation import Examples, evaluate
from jist.metrics import MetricsLog
from jist.models import calibrate
from jist.placement import place
from jist.strategies import State, Strategy


@dataclasses.dataclass(frozen=True)
class Renewed:
    """Training examples that are recomputed for every epoch, always in the same order and shape.

    Attributes:
        shapes: {"x": [N, ...], "y": [N]}; only shapes and types are used.
        of_epoch: maps an epoch, counted from 1, to its examples; a function of the epoch alone, so
            that a resumed run sees the same ones.
    """

    shapes: Mapping[str, Any]
    of_epoch: Callable[[int], Examples]


def train(
    strategy: Strategy,
    train_examples: Examples | Renewed,
    test_examples: Examples,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    checkpoints: str | os.PathLike,
    log: MetricsLog,
    validation_examples: Examples | None = None,
    pools: Sequence[np.ndarray] | None = None,
    calibration_examples: int = 2048,
    progress: Progress | None = None,
    description: str = "training",
) -> list[dict[str, Any]]:
    """Trains to the end, resuming from the last checkpoint if there is one.

    Args:
        strategy: how the workers train.
        train_examples: {"x": [N, ...], "y": i32 [N]}, or an object that makes them for every epoch.
        test_examples: {"x", "y"}, evaluated after every epoch.
        epochs: how often the examples are seen, by all workers together.
        batch_size: examples B in a worker's batch.
        seed: decides partitions, order and calibration subset.
        checkpoints: directory of the checkpoints. One is written after every epoch; the last and
            the best are kept. Best is by accuracy on the validation examples if there are any, else
            on the test examples, as in the paper.
        log: takes one line of metrics per epoch.
        validation_examples: evaluated as well, to choose an epoch without the test examples.
        pools: the examples of each worker (`jist.data.pools`); by default all workers share all.
        calibration_examples: training examples over which the deployed statistics are measured.
        progress: shows a bar, if given.
        description: the bar's label.

    Returns:
        The metrics of every epoch: "epoch", "round", "examples_seen", "train_loss" (mean over the
        workers), "train_loss_per_worker", "test_loss", "test_accuracy", "validation_loss" and
        "validation_accuracy" (with validation examples), "bytes_received_per_worker" and
        "flops_per_worker" (of matrix products; both since the start), "seconds" (of this epoch,
        including recomputed examples).

    Raises:
        ValueError: the batch, or one batch of every worker together, is larger than the data; or
            checkpoints or log belong to another training.
        CheckpointError: the last checkpoint cannot be read.
        FloatingPointError: a loss is not finite; the last good checkpoint is kept.
    """
    source = (
        train_examples
        if isinstance(train_examples, Renewed)
        else Renewed(train_examples, lambda epoch: train_examples)
    )
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    examples = source.shapes["y"].shape[0]
    shape = {"examples": examples, "workers": strategy.workers, "batch_size": batch_size}
    order = functools.partial(worker_order, seed, **shape, pools=pools)
    order(first_step=0, steps=0)  # raises at once if the batch size is wrong
    if strategy.workers * batch_size > examples:
        raise ValueError(
            f"workers x batch_size must be at most the {examples} examples that make an epoch, "
            f"got {strategy.workers} x {batch_size}"
        )
    flops_per_step = strategy.flops_per_step(source.shapes, batch_size)
    state = strategy.init(seed)
    now, on_devices = {}, {}
    metric = selection_metric(validation_examples is not None)
    of = {"strategy": type(strategy).__name__, "local_steps": strategy.local_steps, "seed": seed}
    with Checkpoints(checkpoints, metric=metric, of=of | shape) as saved:
        done = saved.last or 0
        if done:
            state = saved.restore(_saved(state, strategy.model(state)), done)["state"]
        history = log.rewind(done)
        if len(history) < done:
            raise ValueError(
                f"log has {len(history)} of the {done} epochs that checkpoints={checkpoints} has; "
                "give the one that they were trained with"
            )
        bar = progress and progress.add_task(description, total=epochs, completed=done)
        for epoch in range(done + 1, epochs + 1):
            start = time.perf_counter()
            before, now = now, source.of_epoch(epoch)
            if now is not before:
                on_devices = {name: place(x, strategy.replicated) for name, x in now.items()}
            first = steps_until(epoch - 1, **shape)
            last = steps_until(epoch, **shape)
            state, losses = _epoch(strategy, state, on_devices, order, first, last)
            if not np.isfinite(losses).all():
                raise _diverged(f"training loss, {losses.tolist()} by worker,", epoch)
            model = strategy.model(state)
            calibrate(model, calibration_subset(now["x"], calibration_examples, seed))
            metrics = {
                "epoch": epoch,
                "round": int(state.round),
                "examples_seen": last * strategy.workers * batch_size,
                "train_loss": float(losses.mean()),
                "train_loss_per_worker": losses.tolist(),
                **evaluate(model, test_examples),
                **_validate(model, validation_examples),
                "bytes_received_per_worker": strategy.bytes_received(int(state.round), last),
                "flops_per_worker": last * flops_per_step,
                "seconds": round(time.perf_counter() - start, 3),
            }
            # No training loss covers the parameters after the last step.
            if not np.isfinite(metrics["test_loss"]):
                raise _diverged("test loss", epoch)
            log.append(metrics)
            history.append(metrics)
            saved.save(epoch, _saved(state, model), {metric: metrics[metric]})
            if progress is not None and bar is not None:
                progress.update(bar, advance=1)
    return history


def _epoch(
    strategy: Strategy,
    state: State,
    examples: Examples,
    order: Callable[..., Any],
    first: int,
    last: int,
) -> tuple[State, Float[np.ndarray, " workers"]]:
    """Runs the rounds between two steps, and returns each worker's mean loss over them."""
    total = jnp.zeros(strategy.workers)
    by_worker = NamedSharding(strategy.mesh, P("workers"))
    for step in range(first, last, strategy.local_steps):
        steps = min(strategy.local_steps, last - step)
        rows = order(first_step=step, steps=steps)
        state, metrics = strategy.round(state, examples, place(rows, by_worker))
        total = total + steps * metrics["loss"]
    return state, np.asarray(total) / (last - first)


def _diverged(what: str, epoch: int) -> FloatingPointError:
    kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "nothing is saved yet"
    return FloatingPointError(f"the {what} of epoch {epoch} is not finite; {kept}")


def _saved(state: State, model: nnx.Module) -> dict[str, Any]:
    """The content of a checkpoint: the state, and the calibrated statistics."""
    return {"state": state, "deployed": nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))}


def selection_metric(validation: bool) -> str:
    """The metric that chooses the best epoch: test accuracy as in the paper, or validation."""
    return "validation_accuracy" if validation else "test_accuracy"


def restore_model(
    strategy: Strategy,
    checkpoints: str | os.PathLike,
    which: str,
    *,
    validation: bool = False,
) -> nnx.Module:
    """The calibrated network of a checkpoint, ready to evaluate or export.

    Args:
        strategy: the one that trained it.
        checkpoints: the directory given to `train`.
        which: "last", or "best" by accuracy.
        validation: whether `train` was given validation examples.

    Raises:
        ValueError: `which` is neither.
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    if which not in ("last", "best"):
        raise ValueError(f'which must be "last" or "best", got {which!r}')
    like = strategy.init(0)
    metric = selection_metric(validation)
    with Checkpoints(checkpoints, metric=metric, must_exist=True) as saved:
        epoch = saved.last if which == "last" else saved.best
        loaded = saved.restore(_saved(like, strategy.model(like)), epoch)
    model = strategy.model(loaded["state"])
    nnx.update(model, loaded["deployed"])
    model.eval()
    return model


def calibration_subset(x: Array | np.ndarray, size: int, seed: int) -> Array | np.ndarray:
    """Random rows of x: the first ones of a data set sorted by class give wrong statistics."""
    generator = np.random.default_rng([seed, 0xCA11B])
    return x[np.sort(generator.choice(len(x), min(size, len(x)), replace=False))]


def _validate(model: nnx.Module, examples: Examples | None) -> dict[str, float]:
    measured = {} if examples is None else evaluate(model, examples)
    return {name.replace("test", "validation"): value for name, value in measured.items()}
