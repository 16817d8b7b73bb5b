"""The training loop of all strategies: rounds, evaluation, checkpoints, metrics, progress.

In an epoch all workers together see as many examples as the data set has; its last round may be
shorter. After each epoch every neuron's deployed statistics are measured on the full network over
some training examples (VLDB 2022, §2.2), the network is evaluated, and the state is saved. The task
(`jist.tasks`) says what is trained for and what is measured.

Interrupted anywhere, the same call resumes and ends with the same bits; on a GPU with
XLA's `--xla_gpu_deterministic_ops=true`. A call with more epochs extends a finished training, and
ends as if it had been longer from the start: nothing here depends on the last epoch. An optimiser
whose schedule depends on it is another optimiser in a longer training, and is refused.

Under `jax.distributed` every process makes the same call with the same examples; checkpoints are on
a file system that all of them share.
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.progress import Progress

from jist.data.on_disk import Streamed
from jist.data.order import steps_until, worker_order
from jist.evaluation import evaluate, predict
from jist.metrics import MetricsLog
from jist.models import calibrate
from jist.placement import place
from jist.probabilities import fit_temperature
from jist.ragged import batch_shapes, take
from jist.strategies import Strategy
from jist.tasks import Examples, Task, count
from jist.trained import (
    CLASSIFICATION,
    deployed,
    of_loss,
    of_strategy,
    open_checkpoints,
    restore_calibrated,
    restore_model,
    saved_of,
    selection_metric,
)
from jist.within_epoch import Begun, WithinEpoch, placed, run_epoch

__all__ = [
    "Renewed",
    "calibration_subset",
    "restore_calibrated",
    "restore_model",
    "selection_metric",
    "train",
]

OnEpoch = Callable[[list[dict[str, Any]], nnx.Module], bool | None]


@dataclasses.dataclass(frozen=True)
class Renewed:
    """Training examples that are recomputed for every epoch, always in the same order and shape.

    Attributes:
        shapes: tree of arrays [N, ...]; only shapes and types are used.
        of_epoch: maps an epoch, counted from 1, to its examples; a function of the epoch alone, so
            that a resumed run sees the same ones.
    """

    shapes: Any
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
    task: Task = CLASSIFICATION,
    validation_examples: Examples | None = None,
    temperature_examples: Examples | None = None,
    pools: Sequence[np.ndarray] | None = None,
    block: int | None = None,
    checkpoint_every: int | None = None,
    calibration_examples: int = 2048,
    on_epoch: OnEpoch | None = None,
    progress: Progress | None = None,
    description: str = "training",
) -> list[dict[str, Any]]:
    """Trains to the end, resuming from the last checkpoint if there is one.

    Args:
        strategy: how the workers train.
        train_examples: tree of arrays [N, ...] as the task takes them, {"x", "y"} of a classifier;
            or an object that makes them for every epoch.
        test_examples: the same for testing, evaluated after every epoch.
        epochs: how often the examples are seen, by all workers together.
        batch_size: examples B in a worker's batch.
        seed: decides partitions, order and calibration subset.
        checkpoints: directory of the checkpoints. One is written after every epoch; the last and
            the best are kept. Best is by the task's metric on the validation examples if there are
            any, else on the test examples, as in the paper.
        log: takes one line of metrics per epoch.
        task: what is trained for and measured; its loss is also the strategy's.
        validation_examples: evaluated as well, to choose an epoch without the test examples.
        temperature_examples: not trained on: after every epoch the temperature that makes a
            classifier's probabilities true (`jist.probabilities`), or what the task fits in its
            place, is fitted on them and saved with the checkpoint. They may be the validation
            examples.
        pools: the examples of each worker (`jist.data.pools`); by default all workers share all.
        block: rows that lie together on disk, as of `jist.data.order.worker_order`, where training
            examples are `jist.data.OnDisk`. With the same `block`, examples in memory give the same
            bits.
        checkpoint_every: rounds after which the state is saved within an epoch, too, so that a
            killed training loses no more than those (`jist.within_epoch`).
        calibration_examples: training examples over which the deployed statistics are measured.
        on_epoch: called after every epoch with the metrics of all epochs so far, as they are
            returned, and the calibrated network, which is of use until the function returns;
            returns True to stop early. Called again where a run goes on from a checkpoint: one
            that was stopped stays so if the decision follows from the metrics alone. Of many
            processes all must decide alike.
        progress: shows a bar, if given.
        description: the bar's label.

    Returns:
        The metrics of every epoch: "epoch", "round", "examples_seen", "train_loss" (mean over the
        workers), "train_loss_per_worker", "test_loss", "test_accuracy" or whatever the task's
        metrics are called, "validation_loss" and so on (with validation examples),
        "temperature" or what else the task fits (with examples for it),
        "bytes_received_per_worker" and "flops_per_worker" (of matrix products; both since the
        start), "seconds" (of this epoch, including recomputed examples).

    Raises:
        ValueError: the batch, or one batch of every worker together, is larger than the data; the
            strategy trains another loss than the task's; the task refuses the examples, for labels
            beyond the model's outputs say; or checkpoints or log belong to another training, such
            as one with another optimiser, network or loss.
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
    if strategy.loss != task.loss:
        raise ValueError(
            f"strategy must train the task's loss, got {_named(strategy.loss)} and a task with "
            f"{_named(task.loss)}; build it with loss=task.loss"
        )
    examples = count(source.shapes)
    shape = {"examples": examples, "workers": strategy.workers, "batch_size": batch_size}
    order = functools.partial(worker_order, seed, **shape, pools=pools, block=block)
    # Examples of an absent worker are not seen, so an epoch has as many steps as those of fewer.
    steps_at = functools.partial(steps_until, **shape | {"workers": strategy.participants})
    order(first_step=0, steps=0)  # raises at once if the batch size is wrong
    if strategy.workers * batch_size > examples:
        raise ValueError(
            f"workers x batch_size must be at most the {examples} examples that make an epoch, "
            f"got {strategy.workers} x {batch_size}"
        )
    state = strategy.init(seed)
    model = strategy.model(state)
    for given in (test_examples, validation_examples):
        if given is not None:
            task.check(model, given)
    if not isinstance(train_examples, Renewed):
        task.check(model, train_examples)
    flops_per_step = strategy.flops_per_step(source.shapes, batch_size)
    now, on_devices = None, None
    no_loss = place(np.zeros(strategy.workers, np.float32), strategy.replicated)
    metric = selection_metric(task, validation=validation_examples is not None)
    of = {
        "strategy": type(strategy).__name__,
        "local_steps": strategy.local_steps,
        "seed": seed,
        "best": metric,
        **({} if block is None else {"block": block}),
        **shape,
        **of_strategy(strategy, nnx.to_pure_dict(nnx.state(model, nnx.Param))),
        **of_loss(task, model, batch_shapes(source.shapes, batch_size)),
    }
    # The last two, so that a damaged one costs an epoch and not the run.
    within = WithinEpoch(pathlib.Path(checkpoints), checkpoint_every, of)
    # Closed first, so that nothing within an epoch is removed before the epoch is saved.
    with within, open_checkpoints(checkpoints, task, metric, of=of, keep=2) as saved:
        save = functools.partial(within.save, before=saved.wait)
        done = saved.last or 0
        if done:
            loaded = saved.restore(saved_of(state, model), done)
            state = loaded["state"]
            model = deployed(strategy, loaded)
        history = log.rewind(done)
        if len(history) < done:
            raise ValueError(
                f"log has {len(history)} of the {done} epochs that checkpoints={checkpoints} has; "
                "give the one that they were trained with"
            )
        if 0 < done < epochs and on_epoch is not None and on_epoch([*history], model):
            return history
        bar = progress and progress.add_task(description, total=epochs, completed=done)
        for epoch in range(done + 1, epochs + 1):
            start = time.perf_counter()
            before, now = now, source.of_epoch(epoch)
            if now is not before:
                if isinstance(train_examples, Renewed):
                    task.check(strategy.model(state), now)
                streamed = any(isinstance(leaf, Streamed) for leaf in jax.tree.leaves(now))
                on_devices = now if streamed else placed(now, strategy)
            first, last = steps_at(epoch - 1), steps_at(epoch)
            begun = within.begun(Begun(state, no_loss, first), last)
            state, losses = run_epoch(strategy, begun, on_devices, order, first, last, save)
            if not np.isfinite(losses).all():
                raise _diverged(f"training loss, {losses.tolist()} by worker,", epoch)
            model = strategy.model(state)
            calibrate(model, task.inputs(calibration_subset(now, calibration_examples, seed)))
            metrics = {
                "epoch": epoch,
                "round": int(state.round),
                "examples_seen": last * strategy.participants * batch_size,
                "train_loss": float(losses.mean()),
                "train_loss_per_worker": losses.tolist(),
                **evaluate(model, test_examples, task),
                **_validate(model, validation_examples, task),
                "bytes_received_per_worker": strategy.bytes_received(int(state.round), last),
                "flops_per_worker": last
                * flops_per_step
                * strategy.participants
                // strategy.workers,
                "seconds": round(begun.seconds + time.perf_counter() - start, 3),
            }
            # No training loss covers the parameters after the last step.
            if not np.isfinite(metrics["test_loss"]):
                raise _diverged("test loss", epoch)
            fitted = _fitted(model, temperature_examples, task, epoch)
            metrics |= fitted
            log.append(metrics)
            history.append(metrics)
            saved.save(epoch, saved_of(state, model), {metric: metrics[metric]} | fitted)
            if progress is not None and bar is not None:
                progress.update(bar, advance=1)
            if on_epoch is not None and on_epoch([*history], model):
                break
    return history


def _diverged(what: str, epoch: int) -> FloatingPointError:
    kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "nothing is saved yet"
    return FloatingPointError(f"the {what} of epoch {epoch} is not finite; {kept}")


def _named(loss: Callable[..., Any]) -> str:
    return getattr(loss, "__qualname__", repr(loss))


def calibration_subset(x: Examples, size: int, seed: int) -> Examples:
    """Random rows of x: the first ones of a data set sorted by class give wrong statistics.

    Args:
        x: tree of arrays [N, ...] and of ragged rows.
        size: how many of the N, all if there are fewer.
        seed: decides which.
    """
    total = count(x)
    generator = np.random.default_rng([seed, 0xCA11B])
    rows = np.sort(generator.choice(total, min(size, total), replace=False))
    return take(x, rows)


def _validate(model: nnx.Module, examples: Examples | None, task: Task) -> dict[str, float]:
    return {} if examples is None else evaluate(model, examples, task, split="validation")


def _fitted(
    model: nnx.Module, examples: Examples | None, task: Task, epoch: int
) -> dict[str, float]:
    if examples is None:
        return {}
    if task.fit is not None:
        try:
            return {**task.fit(model, examples)}
        except FloatingPointError:
            raise _diverged("output for the examples of the temperature", epoch) from None
    logits = np.asarray(predict(model, examples["x"], task.examples_at_once))
    if not np.isfinite(logits).all():
        raise _diverged("output for the examples of the temperature", epoch)
    return {"temperature": fit_temperature(logits, np.asarray(examples["y"]))}
