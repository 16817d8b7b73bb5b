"""The options of an experiment, of its processes, and one group out of many."""

import dataclasses
import pathlib
from typing import Any, TypeVar

from experiments.command.options.heads import HeadOptions
from experiments.command.options.images import ImageOptions
from experiments.command.options.strategies import StrategyOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentOptions(HeadOptions, ImageOptions):
    """Images, heads that are trained on them, and where the features are kept."""

    features_dir: pathlib.Path | None = None
    """Where features are kept, to share them between runs; by default in the run directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """The processes that train together; under a scheduler no option is needed."""

    coordinator: str | None = None
    """HOST:PORT at which all processes can reach process 0."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""
    join_timeout: int = 300
    """Seconds to wait for the other processes."""
    partner_timeout: int = 120
    """Seconds without a sign of life of another process after which training ends: how long a
    process may stand still, or its machine be out of reach."""


Group = TypeVar("Group", ImageOptions, HeadOptions, StrategyOptions, ProcessOptions)


def pick(options: Any, group: type[Group]) -> Group:
    """The options of one group out of a script's options."""
    return group(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(group)}
    )
