"""What the numbers and the paths of options may be; all are checked before a script begins.

An option means the same in every script, so its name decides. What depends on the data is checked
later, by what uses it.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.command.errors import UsageError

LONGEST_NAME = 255  # bytes of a file's name, on every usual file system
COUNTED = 2**31  # rounds, steps and rows are counted in 32 bits


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; NaN and infinity are in none."""

    low: float
    high: float = math.inf
    with_low: bool = True
    with_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low <= value if self.with_low else self.low < value
        below = value <= self.high if self.with_high else value < self.high
        return above and below

    def refusal(self, value: float) -> str:
        """What is wrong with a number outside, to follow the name of the option."""
        if self.high == COUNTED:
            wanted = f"be at least {self.low:g}" if value < self.low else "be below 2**31"
        elif self.high == math.inf:
            wanted = f"be {'at least' if self.with_low else 'above'} {self.low:g} and finite"
        else:
            ends = "[" if self.with_low else "(", "]" if self.with_high else ")"
            high = "2**32" if self.high == 2**32 else f"{self.high:g}"
            wanted = f"lie in {ends[0]}{self.low:g}, {high}{ends[1]}"
        return f"must {wanted}, got {value}"


COUNT = Range(1, COUNTED)
FROM_0 = Range(0, COUNTED)
SHARE = Range(0, 1)  # of something that must not be lost entirely
SOME = Range(0, 1, with_low=False)
PART = Range(0, 1, with_low=False, with_high=True)
RATE = Range(0, 1000, with_low=False, with_high=True)
SEED = Range(0, 2**32)  # NumPy takes no negative seed, and JAX's keys have 32 bits

# By the name of the option, or by the class and the name where a script has other needs.
NUMBERS = {
    "accumulate": COUNT,
    "alpha": Range(0, with_low=False),
    "base_lr": RATE,
    "batch_size": COUNT,
    "calibration": FROM_0,
    "channels": COUNT,
    "checkpoint_every": COUNT,
    "chunk": COUNT,
    "cover": SHARE,
    "covers": SOME,
    "devices": COUNT,
    "dilation": COUNT,
    "draws": COUNT,
    "dropout": SHARE,
    "ema_decay": SOME,
    "encode_batch": COUNT,
    "entry_dropout": SHARE,
    "epochs": COUNT,
    "examples": COUNT,
    "examples_scale": PART,
    "hidden": COUNT,
    "image_size": COUNT,
    "join_timeout": COUNT,
    "keep_probabilities": PART,
    "label_smoothing": SHARE,
    "layer_decay": PART,
    "learning_rate": RATE,
    "learning_rates": RATE,
    "least_crop": PART,
    "least_share": PART,
    "local_steps": COUNT,
    "lr": RATE,
    "mask_ratio": SHARE,
    "max_missing": SHARE,
    "no_data": Range(0, 65535, with_high=True),
    "most_missing": SHARE,
    "minutes": Range(0, with_low=False),
    "mixup": Range(0, 1000, with_high=True),
    "negatives": FROM_0,
    "nodes": Range(2, COUNTED),
    "num_processes": COUNT,
    "outer_lr": RATE,
    "outer_momentum": SHARE,
    "participation": PART,
    "partner_timeout": COUNT,
    "patch_size": COUNT,
    "picture_every": FROM_0,
    "process_id": FROM_0,
    "processes": COUNT,
    "ratio": SHARE,
    "ratios": SHARE,
    "repeats": COUNT,
    "CostOptions.repeats": FROM_0,
    "replicas": COUNT,
    "resident_gb": Range(0),
    "rounds": COUNT,
    "AmazonRoundsOptions.rounds": Range(2, COUNTED),
    "row_length": Range(0, with_low=False),
    "scale": PART,
    "scenes": COUNT,
    "seed": SEED,
    "seeds": SEED,
    "ConvergenceOptions.seeds": COUNT,  # a number of them
    "side": Range(64, COUNTED),
    "simulate_clouds": SOME,
    "steps": COUNT,
    "stride": COUNT,
    "targets": PART,
    "test": COUNT,
    "test_examples": COUNT,
    "test_share": SOME,
    "tile": COUNT,
    "timed_rounds": COUNT,
    "top_k": COUNT,
    "train": COUNT,
    "trials": COUNT,
    "validation": SHARE,
    "TuneOptions.validation": SOME,
    "warmup": SHARE,
    "weight_decay": Range(0, 1000, with_high=True),
    "width": COUNT,
    "widths": COUNT,
    "workers": COUNT,
    "CostOptions.workers": Range(2, COUNTED),
}
# Directories that are read; and what is read, be it a file or a directory.
READ_DIRECTORIES = ("data_dir", "pretrain_dir", "probe_dir")
READ = ("exports", "images", "labels", "runs", "scene", "scenes")
# Lists that may be empty: what a search tries beside the default, and trainings to leave out.
MAY_BE_EMPTY = {
    *(f"TuneOptions.{name}" for name in ("learning_rates", "local_steps", "norms")),
    "TuneOptions.optimizer_states",
    "SweepOptions.masks",
    "TileOptions.class_names",
    "TileOptions.test_scenes",
    "SweepOptions.workers",
}
# Lists in which a value may come twice: widths of layers, images to classify.
MAY_REPEAT = ("hidden", "images", "widths")


def check_options(options: Any, arguments: Sequence[str] = ()) -> None:
    """Checks every number, list and path among the options of a script.

    Args:
        options: the dataclass.
        arguments: the command line, which says whether an empty list was asked for.

    Raises:
        UsageError: one is not allowed; it is named.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check_options(value, arguments)
            continue
        own = f"{type(options).__name__}.{field.name}"
        if value == () and own not in MAY_BE_EMPTY:
            asked = f"--{field.name.replace('_', '-')}" in arguments
            if asked or field.default != ():
                raise UsageError(f"{field.name} must name at least one, got none")
        if isinstance(value, tuple) and field.name not in MAY_REPEAT:
            twice = [each for number, each in enumerate(value) if each in value[:number]]
            if twice:  # it would count once, as one seed of two, say
                raise UsageError(f"{field.name} must name each once, got {twice[0]} twice")
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, int | float) and not isinstance(each, bool):
                allowed = NUMBERS.get(own) or NUMBERS.get(field.name)
                if allowed is not None and each not in allowed:  # a test asks for every option
                    raise UsageError(f"{field.name} {allowed.refusal(each)}")
            if isinstance(each, pathlib.Path):
                _check_path(field, each)
            elif isinstance(each, str):
                _check_local(field.name, each, r"\w://[^/]")


def _check_path(field: dataclasses.Field, path: pathlib.Path) -> None:
    name, given = field.name, f"{field.name}={path}"
    _check_local(name, str(path), r"^[A-Za-z][\w+.-]+:/")  # a Path has lost one slash of two
    for part in path.parts:
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise UsageError(
                f"{name} holds a name of {len(os.fsencode(part))} bytes, file systems take "
                f"{LONGEST_NAME}: {part[:40]}..."
            )
    if name in READ and str(path).startswith("images:"):
        return
    if name in READ_DIRECTORIES or name in READ:
        path = path.expanduser()
        with _told(given):
            path.stat()
        if name in READ_DIRECTORIES and not path.is_dir():
            raise UsageError(f"{given} must be a directory")
        if not os.access(path, os.R_OK):
            raise UsageError(f"{given} cannot be read: permission denied")
        return
    there = next(parent for parent in _upwards(path) if os.path.lexists(parent))
    with _told(given):
        there.stat()
    if there == path and _is_file(field):
        if there.is_dir():
            raise UsageError(f"{given} must be a file, it is a directory")
        if not there.is_file():  # as /dev/null, which a new file would replace
            raise UsageError(f"{given} must be a file, it is a device or a pipe")
    elif not there.is_dir():
        raise UsageError(f"{given}: {'it' if there == path else there} is no directory")
    elif there != path and not os.access(there, os.W_OK):
        raise UsageError(f"{given} cannot be made: no permission to write to {there}")


def _is_file(field: dataclasses.Field) -> bool:
    """Whether what is written there is a file: then its default has a suffix, or there is none."""
    if isinstance(field.default, pathlib.Path):
        return bool(field.default.suffix)
    return field.name in ("out", "mistakes") and field.default is None


def _upwards(path: pathlib.Path) -> Iterator[pathlib.Path]:
    yield path
    yield from path.parents
    yield pathlib.Path("/")


@contextlib.contextmanager
def _told(given: str) -> Iterator[None]:
    """Names an option whose path the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{given}: {error.strerror}") from None


def _check_local(name: str, value: str, url: str) -> None:
    """Refuses a URL; of a path it would be made as a directory called `gs:`."""
    if re.search(url, value):
        raise UsageError(f"{name}={value}: a local or mounted path is needed")
