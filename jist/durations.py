"""How long a round takes: a model of computing, transmission and delay, one after the other.

What a round costs in bytes and operations is `jist.costs`'; here it becomes seconds.
"""

import itertools
from collections.abc import Sequence

from jist import costs


def round_seconds(
    step: float,
    steps: int,
    received: float | int,
    rate: float,
    *,
    messages: int = 0,
    delay: float = 0.0,
) -> float:
    """Seconds of a round: measured seconds of a step × steps + bytes / rate + delays.

    Nothing overlaps: in jist a round computes, then exchanges. Links are full duplex, and a worker
    sends as much as it receives.

    Args:
        step: seconds of a worker's step, measured without a network.
        steps: steps of a round.
        received: bytes that a worker receives in a round.
        rate: of its link, in bits of payload a second; headers take 4 % of Ethernet's.
        messages: messages of a round that wait for each other.
        delay: seconds of each beside its transmission.

    Raises:
        ValueError: the rate is not positive.
    """
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}")
    return step * steps + 8 * received / rate + messages * delay


def messages_of(strategy: str, workers: int, steps: int) -> int:
    """Messages of a round that wait for each other: those of a ring, or of an all-to-all.

    Args:
        strategy: "data_parallel", "local_sgd", "diloco", "ist" or "ensemble".
        workers: number of workers n.
        steps: steps of a round.

    Raises:
        ValueError: another strategy.
    """
    ring = 2 * (workers - 1)
    exchanges = {"data_parallel": ring * steps, "local_sgd": ring, "diloco": ring}
    exchanges |= {"ist": 2, "ensemble": 0}
    if strategy not in exchanges:
        raise ValueError(f"strategy must be one of {(*exchanges,)}, got {strategy!r}")
    return exchanges[strategy]


def step_line(flops: Sequence[float | int], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds of a step and of an operation: seconds = first + second × flops, least squares.

    Neither is negative. Of equal operations only, all time is theirs.

    Args:
        flops: operations of some steps.
        seconds: how long each took.
    """
    mean_f, mean_s = sum(flops) / len(flops), sum(seconds) / len(seconds)
    spread = sum((f - mean_f) ** 2 for f in flops)
    covered = sum((f - mean_f) * (s - mean_s) for f, s in zip(flops, seconds, strict=True))
    slope = covered / spread if spread else mean_s / mean_f
    at_zero = mean_s - slope * mean_f
    if at_zero < 0 or slope < 0:
        at_zero, slope = 0.0, mean_s / mean_f
    return at_zero, slope


def ist_speed_up(
    widths: Sequence[int],
    workers: int,
    local_steps: int,
    batch: int,
    rate: float,
    *,
    at_zero: float,
    per_flop: float,
    delay: float = 0.0,
) -> float:
    """How many times faster IST takes J steps than data parallel training, per worker.

    Bytes are those of VLDB 2022, §2.3, for ring all-reduce and for subnets that go out and come
    back, n - 1 n-ths of them over the link. How many steps an accuracy needs is not in it.

    Args:
        widths: of the network, inputs and classes included.
        workers: number of workers n, at least 2.
        local_steps: steps J of a round.
        batch: examples B in a worker's batch.
        rate: of each link, in bits of payload a second.
        at_zero: seconds of a step without operations.
        per_flop: seconds of an operation.
        delay: seconds of a message.
    """
    over_link = 2 * (workers - 1) / workers
    products = [a * b for a, b in itertools.pairwise(widths)]
    inner = sum(products[1:-1])
    # A product, and two for its gradient, of which the first layer needs one.
    full = batch * (6 * sum(products) - 2 * products[0])
    part = batch * ((6 * (sum(products) - inner) - 2 * products[0]) / workers)
    part += batch * 6 * inner / workers**2
    whole = round_seconds(
        at_zero + per_flop * full,
        local_steps,
        over_link * local_steps * costs.data_parallel_bytes_paper(widths),
        rate,
        messages=messages_of("data_parallel", workers, local_steps),
        delay=delay,
    )
    return whole / round_seconds(
        at_zero + per_flop * part,
        local_steps,
        over_link * local_steps * costs.ist_bytes_paper(widths, workers, local_steps),
        rate,
        messages=messages_of("ist", workers, local_steps),
        delay=delay,
    )
