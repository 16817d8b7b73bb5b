"""A network in a checkpoint: what is saved, of which training it is, and the way back.

`jist.trainer` writes these checkpoints, and offers `restore_model` and `restore_calibrated` as its
own.
"""

import os
from typing import Any

from flax import nnx

from jist.checkpoint import Checkpoints
from jist.fingerprint import loss_fingerprint, optimizer_fingerprint
from jist.strategies import LazyRows, State, Strategy
from jist.tasks import Task, classification

CLASSIFICATION = classification()


def selection_metric(task: Task, *, validation: bool) -> str:
    """The metric that chooses the best epoch: of the test examples, or of the validation ones."""
    return f"{'validation' if validation else 'test'}_{task.best}"


def restore_model(
    strategy: Strategy,
    checkpoints: str | os.PathLike,
    which: str,
    *,
    task: Task = CLASSIFICATION,
    validation: bool = False,
) -> nnx.Module:
    """The calibrated network of a checkpoint, ready to evaluate or export.

    Args:
        strategy: the one that trained it.
        checkpoints: the directory given to `train`.
        which: "last", or "best" by the task's metric.
        task: what it was trained for.
        validation: whether `train` was given validation examples.

    Raises:
        ValueError: `which` is neither.
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    return restore_calibrated(strategy, checkpoints, which, task=task, validation=validation)[0]


def restore_calibrated(
    strategy: Strategy,
    checkpoints: str | os.PathLike,
    which: str,
    *,
    task: Task = CLASSIFICATION,
    validation: bool = False,
) -> tuple[nnx.Module, float | None]:
    """As `restore_model`, and the temperature by which its logits are divided.

    It is None where `train` was given no examples to fit it on.
    """
    if which not in ("last", "best"):
        raise ValueError(f'which must be "last" or "best", got {which!r}')
    like = strategy.init(0)
    metric = selection_metric(task, validation=validation)
    with open_checkpoints(checkpoints, task, metric, must_exist=True) as saved:
        epoch = saved.last if which == "last" else saved.best
        loaded = saved.restore(saved_of(like, strategy.model(like)), epoch)
        temperature = saved.metrics(epoch).get("temperature")
    return deployed(strategy, loaded), temperature


def of_strategy(strategy: Strategy, params: Any) -> dict[str, Any]:
    """What a checkpoint says of the optimisers and, where some are absent, of the workers."""
    of: dict[str, Any] = optimizer_fingerprint(strategy.optimizer, params)
    if isinstance(strategy.optimizer, LazyRows):
        of["lazy rows"] = list(strategy.optimizer.kernel)
    if strategy.outer is not None:
        outer = optimizer_fingerprint(strategy.outer, params)
        of |= {f"outer {name}": digest for name, digest in outer.items()}
    if strategy.participants != strategy.workers:
        of["participants"] = strategy.participants
    return of


def of_loss(task: Task, model: nnx.Module, batch: Any) -> dict[str, str]:
    """What a checkpoint says of the network and its loss."""
    graphdef, variables = nnx.split(model)

    def loss(variables: Any, batch: Any) -> Any:
        return task.loss(nnx.merge(graphdef, variables), batch)

    return loss_fingerprint(loss, variables, batch)


def saved_of(state: State, model: nnx.Module) -> dict[str, Any]:
    """The content of a checkpoint: the state, and the calibrated statistics."""
    return {"state": state, "deployed": nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))}


def deployed(strategy: Strategy, saved: dict[str, Any]) -> nnx.Module:
    """The calibrated network of a checkpoint, in evaluation mode."""
    model = strategy.model(saved["state"])
    nnx.update(model, saved["deployed"])
    model.eval()
    return model


def open_checkpoints(
    checkpoints: str | os.PathLike, task: Task, metric: str, **how: Any
) -> Checkpoints:
    """The checkpoints of a training for a task, of which the best one is that of a metric."""
    better = bool(task.higher_is_better)
    return Checkpoints(checkpoints, metric=metric, higher_is_better=better, **how)
