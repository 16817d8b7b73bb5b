"""The options of an experiment, and one group out of many."""

import dataclasses
import pathlib
from typing import Any, TypeVar

from experiments.command.joining import ProcessOptions
from experiments.command.options.heads import HeadOptions
from experiments.command.options.images import ImageOptions
from experiments.command.options.strategies import StrategyOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentOptions(HeadOptions, ImageOptions):
    """Images, heads that are trained on them, and where the features are kept."""

    features_dir: pathlib.Path | None = None
    """Where features are kept, to share them between runs; by default in the run directory."""


Group = TypeVar("Group", ImageOptions, HeadOptions, StrategyOptions, ProcessOptions)


def pick(options: Any, group: type[Group]) -> Group:
    """The options of one group out of a script's options."""
    return group(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(group)}
    )
