"""Variants that do the same work take turns, and their times are compared turn by turn.

What slows the machine down slows both variants of a turn, so ratios of one turn say more than
times.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

JIST = "jist"

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to do the work.

    Attributes:
        run: does it once and waits until it is done.
        items: how many items (images, examples) that is; variants may take different batches.
        dtype: its compute type, where it is not the case's.
        flops: operations that an item needs at least, likewise.
        first_run_s: seconds of its first run, compilation included, where that is behind it (to
            compare results, which may take less than the whole work; to choose a batch).
    """

    run: Callable[[], object]
    items: float
    _: dataclasses.KW_ONLY
    dtype: str | None = None
    flops: float | None = None
    first_run_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """The same work by several variants, one row of a benchmark.

    Attributes:
        name: what is done.
        unit: items per second, as "images/s".
        variants: by name; that of jist is called `JIST`.
        flops: floating-point operations that an item needs at least, or None.
        facts: what else was found out, such as differences of results and chosen batches.
        dtype: compute type of jist's variant, and of those that name no other.
        conclude: from the seconds of all turns by variant, facts that only the timing shows.
    """

    name: str
    unit: str
    variants: Mapping[str, Variant]
    flops: float | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"
    conclude: Callable[[Mapping[str, Sequence[float]]], Mapping[str, Any]] = lambda seconds: {}


def measurements(case: Case, repeats: int) -> Iterator[dict[str, Any]]:
    """Lets every variant run once to warm up, then in turns; says on standard error where it is.

    Args:
        case: the variants.
        repeats: turns of each.

    Yields:
        After every turn all samples so far in seconds, and of every variant: the first run
        (compilation included; see `Variant.first_run_s`), items per second, and by what factor jist
        is faster, taken turn by turn.
    """
    first = {}
    for name, variant in case.variants.items():
        say(f"{case.name}: first run of {name}")
        taken = variant.first_run_s
        first[name] = seconds(variant.run) if taken is None else taken
    for variant in case.variants.values():
        variant.run()
    samples: dict[str, list[float]] = {name: [] for name in case.variants}
    for repeat in range(1, repeats + 1):
        say(f"{case.name}: repeat {repeat} of {repeats}")
        for name, variant in case.variants.items():
            samples[name].append(seconds(variant.run))
        facts = case.conclude(samples) if repeat == repeats else {}
        yield _summed_up(case, first, samples) | {"facts": {**case.facts, **facts}}


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """The last of the measurements."""
    *_, last = measurements(case, repeats)
    return last


def say(what: str) -> None:
    """Where a benchmark is, on standard error: what is compiled takes minutes without a word."""
    print(what, file=sys.stderr, flush=True)


def _summed_up(
    case: Case, first: Mapping[str, float], samples: Mapping[str, list[float]]
) -> dict[str, Any]:
    items = {name: variant.items for name, variant in case.variants.items()}
    per_item = {name: [s / items[name] for s in values] for name, values in samples.items()}
    return {
        "name": case.name,
        "unit": case.unit,
        "dtype": case.dtype,
        "variants": {
            name: {
                "dtype": variant.dtype or case.dtype,
                "flops_per_item": variant.flops or case.flops,
                "items": items[name],
                "first_run_s": first[name],
                "samples_s": list(samples[name]),
                "items_per_s": spread([1 / s for s in per_item[name]]),
                "jist_is_faster_by": spread(
                    [
                        theirs / ours
                        for theirs, ours in zip(per_item[name], per_item[JIST], strict=True)
                    ]
                ),
            }
            for name, variant in case.variants.items()
        },
    }


def seconds(run: Callable[[], object]) -> float:
    """How long one run takes."""
    return timed(run)[0]


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """How long one run takes, and what comes of it."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def spread(samples: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(samples), "least": min(samples), "greatest": max(samples)}
