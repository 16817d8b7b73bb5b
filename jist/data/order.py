"""The order in which each worker sees the examples.

Every worker passes through the examples in an order of its own, shuffled anew for each pass, and
cuts this endless stream into batches; a batch may hold the end of one pass and the start of the
next, so all batches are full and no example is left out. Which examples a step takes is a function
of (seed, worker, step): resuming needs nothing but the number of steps done. `pools` decides which
examples belong to a worker.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

WINDOW = 16  # blocks that are shuffled together


def steps_until(epoch: int, *, examples: int, workers: int, batch_size: int) -> int:
    """Steps that each worker has taken at the end of an epoch, counted from 1.

    An epoch is defined by the examples seen by all workers together: after epoch e they have seen
    at least e · N, and less than one batch per worker more.
    """
    return -(-epoch * examples // (workers * batch_size))


def worker_order(
    seed: int,
    *,
    examples: int,
    workers: int,
    batch_size: int,
    first_step: int,
    steps: int,
    pools: Sequence[Int[np.ndarray, "..."]] | None = None,
    block: int | None = None,
) -> Int[np.ndarray, "{workers} {steps} {batch_size}"]:
    """Which examples each worker takes in some of its steps.

    Args:
        seed: seed of the run.
        examples: number of examples N.
        workers: number of workers n.
        batch_size: examples B in a worker's batch.
        first_step: steps that each worker has taken before.
        steps: number of steps.
        pools: the examples of each worker (`jist.data.pools`); by default all workers share all.
        block: for examples on disk, so many rows that are read together: a pass then takes the
            blocks in random order, `WINDOW` of them at a time, and shuffles the rows of those. By
            default all rows are shuffled.

    Returns:
        Indices of examples, i32 [workers, steps, batch].

    Raises:
        ValueError: the batch is empty or larger than the data of a worker.
    """
    sizes = [examples] * workers if pools is None else [len(pool) for pool in pools]
    if not 1 <= batch_size <= min(sizes):
        whose = "" if pools is None else f" of worker {sizes.index(min(sizes))}"
        raise ValueError(
            f"batch_size must be between 1 and the {min(sizes)} examples{whose}, got {batch_size}"
        )
    positions = np.arange(first_step * batch_size, (first_step + steps) * batch_size)
    order = np.empty((workers, len(positions)), np.int32)
    for worker, size in enumerate(sizes):
        passes, places = np.divmod(positions, size)
        for number in np.unique(passes):
            rows = passes == number
            order[worker, rows] = _shuffled(seed, worker, int(number), size, block)[places[rows]]
        if pools is not None:
            order[worker] = pools[worker][order[worker]]
    return order.reshape(workers, steps, batch_size)


@functools.lru_cache(maxsize=32)  # a pass spans many rounds
def _shuffled(seed: int, worker: int, number: int, examples: int, block: int | None) -> np.ndarray:
    generator = np.random.default_rng([seed, worker, number])
    if block is None:
        return generator.permutation(examples)
    starts = block * generator.permutation(-(-examples // block))
    order = np.concatenate([np.arange(s, min(s + block, examples)) for s in starts])
    for first in range(0, examples, WINDOW * block):
        generator.shuffle(order[first : first + WINDOW * block])
    return order
