"""Options -> the untrained head, the strategy that trains it, and the examples of each worker."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.command.errors import UsageError
from experiments.command.options import HeadOptions, StrategyOptions
from experiments.runs.splits import Split
from jist import strategies, tasks
from jist.data.pools import sharded_pools
from jist.models import MLP
from jist.tasks import Task

IST_OPTIONS = ("partition", "optimizer_state", "exchange", "exchange_dtype", "shares")
IST_OPTIONS += ("state_dtype", "outer", "outer_lr", "outer_momentum", "participation", "replicas")
# Which options each strategy takes beside the number of workers and of local steps.
STRATEGIES: dict[str, tuple[type[strategies.Strategy], tuple[str, ...]]] = {
    "centralized": (strategies.Centralized, ()),
    "data_parallel": (strategies.DataParallel, ()),
    "local_sgd": (strategies.LocalSGD, ("optimizer_state", "participation")),
    "diloco": (strategies.DiLoCo, ("outer_lr", "outer_momentum", "participation")),
    "ensemble": (strategies.Ensemble, ("partition",)),
    "ist": (strategies.IST, IST_OPTIONS),
}
_OF_OUTER = ("outer", "outer_lr", "outer_momentum")
# What heads are trained for.
TASK = tasks.classification()
_OPTIMIZERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
}
EXCHANGE_DTYPES = {"none": None, "bfloat16": jnp.bfloat16, "log8": "log8"}


def strategy_of(how: StrategyOptions) -> tuple[type[strategies.Strategy], dict[str, Any]]:
    """The strategy that the options name, and what it takes beside workers and local steps.

    Raises:
        ValueError: an unknown strategy or option, or one that the strategy does not take.
    """
    if how.strategy not in STRATEGIES:
        raise UsageError(f"strategy must be one of {(*STRATEGIES,)}, got {how.strategy!r}")
    strategy, takes = STRATEGIES[how.strategy]
    for option in IST_OPTIONS:
        value = getattr(how, option)
        usual = [getattr(StrategyOptions, option)]
        usual += ["replicated"] if option == "exchange" else []  # as all strategies are
        if option not in takes and value not in usual:
            raise UsageError(f"{option}={value} cannot be used with --strategy {how.strategy}")
    for option, types in (("exchange_dtype", EXCHANGE_DTYPES), ("state_dtype", EXCHANGE_DTYPES)):
        if getattr(how, option) not in types:
            raise UsageError(f"{option} must be one of {(*types,)}, got {getattr(how, option)!r}")
    if how.state_dtype != "none" and how.optimizer_state == "reset":
        raise UsageError("state_dtype needs --optimizer-state carry: with reset no state travels")
    given = dataclasses.asdict(how) | {
        "exchange_dtype": EXCHANGE_DTYPES[how.exchange_dtype],
        "state_dtype": EXCHANGE_DTYPES[how.state_dtype],
        "shares": parse_shares(how.shares),
    }
    taken = {option: given[option] for option in takes if option not in _OF_OUTER}
    if how.strategy == "diloco" or how.outer == "nesterov":
        taken["outer"] = strategies.nesterov(how.outer_lr, how.outer_momentum)
    return strategy, taken | {"ema_decay": how.ema_decay}


@functools.cache  # so that trainings that differ in their data only are compiled once
def build_strategy(
    inputs: int,
    classes: int,
    head: HeadOptions,
    how: StrategyOptions,
    seed: int,
    devices: int | None = None,
    *,
    network: Callable[..., nnx.Module] = MLP,
    task: Task = TASK,
) -> strategies.Strategy:
    """The untrained head and the strategy that trains it.

    Args:
        inputs: numbers in a feature vector.
        classes: outputs of the head.
        head: how it is trained.
        how: how many workers train it.
        seed: decides its initial values.
        devices: that share the workers; by default the most that are there.
        network: makes the head, as `MLP`.
        task: what it is trained for.

    Raises:
        ValueError: an unknown strategy or option, one that the strategy does not take, or as the
            strategy itself.
    """
    strategy, taken = strategy_of(how)
    model = network(
        (inputs, *head.hidden, classes),
        norm=None if head.norm == "none" else head.norm,
        dropout=head.dropout,
        rngs=nnx.Rngs(seed),
    )
    optimizer = optimizer_of(head)
    if any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))):
        optimizer = strategies.stochastically_rounded(optimizer, seed)
    if head.lazy_rows:
        optimizer = strategies.LazyRows(optimizer)
    elif head.fused_output:
        optimizer = strategies.FusedOutput(optimizer)
    built = strategy(
        model,
        optimizer,
        workers=how.workers,
        local_steps=how.local_steps,
        loss=task.loss,
        mesh=None if devices is None else strategies.workers_mesh(how.workers, devices),
        **taken,
    )
    taking_part = {device.process_index for device in built.mesh.devices.flat}
    if len(taking_part) < jax.process_count():
        raise UsageError(
            f"every process must have a worker, got {how.workers} workers on {built.mesh.size} "
            f"devices of {len(taking_part)} of the {jax.process_count()} processes"
        )
    return built


def optimizer_of(head: HeadOptions) -> optax.GradientTransformation:
    """The optimiser that the options name, of dense rows and whatever type."""
    if head.optimizer == "adamw":
        return optax.adamw(head.learning_rate, weight_decay=head.weight_decay)
    return _OPTIMIZERS[head.optimizer](head.learning_rate)


def say_exchange(how: StrategyOptions, strategy: strategies.Strategy) -> None:
    """Prints which exchange was chosen, where there was a choice."""
    if how.exchange != "auto" or strategy.mesh.size == 1 or jax.process_index():
        return
    if isinstance(strategy, strategies.IST):
        print(f"--exchange auto: {strategy.exchange} ({strategy.exchange_reason})")


def parse_shares(text: str | None) -> tuple[float, ...] | None:
    """The numbers of a comma-separated list.

    Raises:
        ValueError: it is none.
    """
    try:
        return None if text is None else tuple(float(share) for share in text.split(","))
    except ValueError:
        raise UsageError(f"shares must be numbers between commas, got {text!r}") from None


def worker_pools(
    how: StrategyOptions, labels: np.ndarray | None, seed: int
) -> list[np.ndarray] | None:
    """The examples of each worker; None if every worker sees all.

    Args:
        how: the options.
        labels: the class of every example [N]; None where there are no classes.
        seed: decides which.

    Raises:
        ValueError: the options contradict each other, or as `sharded_pools`.
    """
    if how.worker_data == "sharded":
        if labels is None:
            raise UsageError("--worker-data sharded needs examples of one class each")
        return sharded_pools(labels, how.workers, seed=seed, alpha=how.alpha)
    if how.worker_data != "shared":
        raise UsageError(f"worker_data must be shared or sharded, got {how.worker_data!r}")
    if how.alpha is not None:
        raise UsageError(f"alpha needs --worker-data sharded, got {how.alpha}")
    return None


def validation_rows(split: Split, share: float, seed: int) -> np.ndarray:
    """Which training examples are held out to choose the epoch: the same share of every class.

    Args:
        split: the training examples [N].
        share: share of each class, in [0, 1); 0 holds out none.
        seed: decides which.

    Returns:
        bool [N].

    Raises:
        ValueError: a share outside [0, 1).
        DataError: a class has a single example.
    """
    if not 0 <= share < 1:
        raise UsageError(f"validation must lie in [0, 1), got {share}")
    return split.held_out(share, seed) if share else np.zeros(len(split), bool)
