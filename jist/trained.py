"""A network in a checkpoint: what is saved, of which training it is, and the way back.

`jist.trainer` writes these checkpoints, and offers `restore_model` and `restore_calibrated` as its
own.
"""

import os
from typing import Any, NamedTuple

from flax import nnx

from jist.checkpoint import Checkpoints
from jist.fingerprint import loss_fingerprint, optimizer_fingerprint
from jist.label_probabilities import Scaling
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
    found = restore_calibrated(strategy, checkpoints, which, task=task, validation=validation)
    return found.model


class Calibrated(NamedTuple):
    """A network, and what makes its outputs probabilities.

    Attributes:
        model: the network, in evaluation mode.
        temperature: by which its logits are divided; None where `train` was given no examples to
            fit it on.
        offset: what is then added to them; of many labels.
    """

    model: nnx.Module
    temperature: float | None
    offset: float

    @property
    def scaling(self) -> Scaling | None:
        """Temperature and offset of many labels."""
        return None if self.temperature is None else Scaling(self.temperature, self.offset)


def restore_calibrated(
    strategy: Strategy,
    checkpoints: str | os.PathLike,
    which: str,
    *,
    task: Task = CLASSIFICATION,
    validation: bool = False,
) -> Calibrated:
    """As `restore_model`, and what makes its outputs probabilities."""
    if which not in ("last", "best"):
        raise ValueError(f'checkpoint must be "last" or "best", got {which!r}')
    like = strategy.init(0)
    metric = selection_metric(task, validation=validation)
    with open_checkpoints(checkpoints, task, metric, must_exist=True) as saved:
        epoch = saved.last if which == "last" else saved.best
        loaded = saved.restore(saved_of(like, strategy.model(like)), epoch)
        fitted = saved.metrics(epoch)
    return Calibrated(
        deployed(strategy, loaded), fitted.get("temperature"), fitted.get("offset", 0.0)
    )


def of_strategy(strategy: Strategy, params: Any) -> dict[str, Any]:
    """What a checkpoint says of the optimisers, an average, and workers where some are absent."""
    of: dict[str, Any] = optimizer_fingerprint(strategy.optimizer, params)
    of["ema decay"] = strategy.ema_decay
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
