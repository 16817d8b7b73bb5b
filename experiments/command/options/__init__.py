"""The groups of options that scripts share."""

from experiments.command.joining import ProcessOptions
from experiments.command.options.groups import ExperimentOptions, pick
from experiments.command.options.heads import BATCH_SIZE, HeadOptions, batch_of
from experiments.command.options.images import (
    BANDS,
    NATURAL,
    OF_IMAGES,
    OF_SPARSE,
    READING,
    ImageOptions,
    NaturalOptions,
)
from experiments.command.options.strategies import RoundOptions, StrategyOptions

__all__ = [
    "BANDS",
    "BATCH_SIZE",
    "NATURAL",
    "OF_IMAGES",
    "OF_SPARSE",
    "READING",
    "ExperimentOptions",
    "HeadOptions",
    "ImageOptions",
    "NaturalOptions",
    "ProcessOptions",
    "RoundOptions",
    "StrategyOptions",
    "batch_of",
    "pick",
]
