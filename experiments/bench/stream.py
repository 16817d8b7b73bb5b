"""Features that stay on disk beside the same ones in memory: what streaming costs a training.

A file of 4 GB of vectors (`.npy`) is trained on from disk, a round's rows read while the round
before is computed, and from memory, in the same order, by the trainer's own loop; both must come to
the same losses. Before every turn from disk the system is told to forget the file's pages, so that
rows are really read. Every turn takes other rows than the one before.
"""

import functools
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.bench.timing import JIST, Case, Variant, say, timed
from jist import features
from jist.data import OnDisk
from jist.data.order import worker_order
from jist.models import MLP
from jist.strategies import IST
from jist.within_epoch import Begun, run_epoch

RESIDENT = "jist, in memory"
BYTES, DIM, CLASSES = 4_000_000_000, 768, 10
WORKERS, BATCH, LOCAL_STEPS, ROUNDS = 4, 64, 50, 4
HIDDEN = ((1000, 1000), (128,))  # the usual head, and one that computes little for what it reads
QUICK_BYTES, QUICK_HIDDEN, QUICK_STEPS = 10_000_000, ((8,),), 2


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """The usual head and a small one, on one file; with `quick` a tiny one on a small file."""
    size, steps = (QUICK_BYTES, QUICK_STEPS) if quick else (BYTES, LOCAL_STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "x.npy"
        say(f"writing {size / 1e9:g} GB")
        write(path, size // (4 * DIM))
        for hidden in QUICK_HIDDEN if quick else HIDDEN:
            yield case(path, hidden, steps)


def write(path: pathlib.Path, rows: int) -> None:
    """Random vectors [rows, DIM], whose file is on disk when this returns."""
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIM))
    block = np.random.default_rng(0).standard_normal((8192, DIM), np.float32)
    for number, first in enumerate(range(0, rows, len(block))):
        part = table[first : first + len(block)]
        part[:] = np.roll(block, number, axis=1)[: len(part)]
    table.flush()


def case(path: pathlib.Path, hidden: tuple[int, ...], local_steps: int) -> Case:
    """Some rounds from disk and from memory.

    Args:
        path: of the vectors.
        hidden: widths of the hidden layers.
        local_steps: steps of a round.

    Raises:
        RuntimeError: they do not come to the same losses.
    """
    table = np.load(path, mmap_mode="r")
    labels = jnp.arange(len(table), dtype=jnp.int32) % CLASSES
    on_disk = OnDisk(table, np.arange(len(table)))
    model = MLP((DIM, *hidden, CLASSES), rngs=nnx.Rngs(0))
    strategy = IST(model, optax.adam(1e-3), workers=WORKERS, local_steps=local_steps)
    resident = jax.device_put({"x": np.asarray(table), "y": labels}, strategy.replicated)
    disk = Rounds(strategy, {"x": on_disk, "y": labels}, path)
    memory = Rounds(strategy, resident, None)
    first = {name: timed(of) for name, of in ((JIST, disk), (RESIDENT, memory))}
    if not np.array_equal(disk.losses, memory.losses):
        raise RuntimeError(f"losses differ: {disk.losses} from disk, {memory.losses} in memory")
    rows = ROUNDS * local_steps * WORKERS * BATCH
    return Case(
        f"{'-'.join(map(str, (DIM, *hidden, CLASSES)))}, {WORKERS} workers, {ROUNDS} rounds",
        "examples/s",
        {
            name: Variant(of, rows, first_run_s=first[name][0])
            for name, of in ((JIST, disk), (RESIDENT, memory))
        },
        facts={"file_bytes": path.stat().st_size, "equal_losses": True},
    )


class Rounds:
    """Some rounds of a training that goes on.

    Args:
        strategy: what trains.
        examples: {"x", "y"}.
        path: of a file whose pages are forgotten before, if examples lie in one.
    """

    def __init__(self, strategy: IST, examples: dict[str, Any], path: pathlib.Path | None):
        self._strategy, self._examples, self._path = strategy, examples, path
        self._state = strategy.init(0)
        self._steps = 0
        shape = {"workers": WORKERS, "batch_size": BATCH, "examples": len(examples["y"])}
        self._order = functools.partial(worker_order, 0, block=features.CHUNK, **shape)
        self.losses = np.zeros(WORKERS)

    def __call__(self) -> None:
        """Trains for some rounds more."""
        if self._path is not None:
            forget(self._path)
        first, self._steps = self._steps, self._steps + ROUNDS * self._strategy.local_steps
        begun = Begun(self._state, jnp.zeros(WORKERS), first)
        self._state, self.losses = run_epoch(
            self._strategy, begun, self._examples, self._order, first, self._steps
        )


def forget(path: pathlib.Path) -> None:
    """Tells the system that it need not keep a file's pages in memory; only Linux listens."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
