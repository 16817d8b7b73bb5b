"""Runs take turns and are timed; lines are fitted to what came out.

On the CPU the clock counts processor time, of all threads: it is the work that grows, and other
programs on the machine do not enter. On a GPU, where the processor waits, it is the wall clock.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from experiments.bench.timing import spread

CLOCKS = {"cpu": time.process_time, "gpu": time.perf_counter}

Name = TypeVar("Name", bound=Hashable)


def take_turns(
    runs: Mapping[Name, Callable[[], object]], repeats: int, device: str
) -> dict[Name, list[float]]:
    """Seconds of every run: one run to compile and warm up, then `repeats` in turns.

    Args:
        runs: does its work and waits until it is done.
        repeats: samples of each.
        device: whose clock, "cpu" or "gpu".
    """
    clock = CLOCKS[device]
    for run in runs.values():
        run()
    samples: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = clock()
            run()
            samples[name].append(clock() - start)
    return samples


def timed(samples: Sequence[float], units: float) -> dict[str, Any]:
    """Samples in seconds, and median, least and greatest of the seconds per unit of work."""
    return {
        "samples_s": list(samples),
        "units": units,
        "seconds_per_unit": spread([seconds / units for seconds in samples]),
    }


def linear_fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The line y = at_zero + slope x with the least squares of relative errors.

    Relative, because sizes span decades and the largest would else decide alone.

    Args:
        x: at least two different sizes.
        y: positive costs.

    Returns:
        `at_zero`, `slope`, and `worst_error`: the largest |fitted - y| / y, which tells whether it
        is a line at all; two points always lie on one.

    Raises:
        ValueError: fewer than two different sizes, or a cost that is not positive.
    """
    sizes, costs = np.asarray(x, float), np.asarray(y, float)
    if len(np.unique(sizes)) < 2 or len(sizes) != len(costs):
        raise ValueError(f"x must hold two different sizes and y as many costs, got {x} and {y}")
    if costs.min() <= 0:
        raise ValueError(f"y must be positive, got {y}")
    columns = np.stack([np.ones_like(sizes), sizes], axis=1) / costs[:, None]
    found, *_ = np.linalg.lstsq(columns, np.ones_like(costs), rcond=None)
    errors = np.abs(columns @ found - 1)
    return {
        "at_zero": float(found[0]),
        "slope": float(found[1]),
        "worst_error": float(errors.max()),
    }
