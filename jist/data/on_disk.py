"""Rows that stay on disk and are read when they are used: for features larger than memory."""

import abc
import dataclasses
import math
import mmap
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_AHEAD = 1024  # rows that are asked for together, as many as are shuffled together
_ALIGNED = 64  # bytes
_MANY = 1 / 32  # of them must be wanted


class Streamed(abc.ABC):
    """Rows that are not in memory, indexed like an array [N, ...] along the first axis.

    They take an array's place among training and test examples (`jist.trainer.train`).
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Of what indexing gives."""

    @abc.abstractmethod
    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        """Reads rows: those of a slice, of an array of indices, or where bool [N] is true."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return self.dtype.itemsize * math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def announce(self, which: Int[np.ndarray, " some"]) -> None:  # noqa: B027, a hint
        """Asks the system to read rows that are wanted soon; returns at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class OnDisk(Streamed):
    """Some rows of a table of numbers [M, D] on disk, as float32.

    Attributes:
        table: what reads rows by slices and by arrays of indices: a memory map, or
            `jist.store.StoredRows`.
        rows: which of its rows, ascending [N].
    """

    table: Any
    rows: Int[np.ndarray, " examples"]

    @property
    def shape(self) -> tuple[int, int]:
        """[N, D]."""
        return len(self.rows), self.table.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of what indexing gives."""
        return np.dtype(np.float32)

    def __getitem__(
        self, which: slice | Int[np.ndarray, " some"] | np.ndarray
    ) -> Float[np.ndarray, "some dim"]:
        """Reads rows: those of a slice, of an array of indices, or where bool [N] is true."""
        wanted, table = self.rows[which], self.table
        found = _aligned(len(wanted), self.shape[1])
        if isinstance(table, np.memmap) and table.dtype == np.float32:
            _read_ahead(table, wanted)
            # "clip" writes into `found` without a copy between; all rows are there.
            return np.take(np.asarray(table), wanted, axis=0, out=found, mode="clip")
        # In their order on disk, each page once.
        order = np.argsort(wanted, kind="stable")
        found[order] = self.table[wanted[order]]
        return found

    def announce(self, which: Int[np.ndarray, " some"]) -> None:
        """Asks the system to read rows that are wanted soon; returns at once."""
        if isinstance(self.table, np.memmap):
            _read_ahead(self.table, self.rows[which])

    def some(self, rows: np.ndarray) -> "OnDisk":
        """The rows where `rows`, bool [N], is true; still on disk."""
        return OnDisk(self.table, self.rows[rows])


def _aligned(rows: int, width: int) -> np.ndarray:
    """Memory for float32 [rows, width] that begins where JAX takes it without a copy on a CPU."""
    memory = np.empty(4 * rows * width + _ALIGNED, np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    return memory[first : first + 4 * rows * width].view(np.float32).reshape(rows, width)


def _read_ahead(table: np.memmap, rows: Int[np.ndarray, " some"]) -> None:
    """Asks the system for the parts of a file that hold many of the rows, before they are used.

    Else every page is read when it is first touched, while everything waits: six times as slow.
    """
    base = table.base
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
        return
    if not table.flags.c_contiguous or not rows.size:
        return
    counts = np.bincount(rows // _AHEAD)
    parts = np.flatnonzero(counts >= _AHEAD * _MANY)
    width, start = table.strides[0], table.offset % mmap.ALLOCATIONGRANULARITY
    for run in np.split(parts, np.flatnonzero(np.diff(parts) > 1) + 1):
        if run.size:
            first = start + int(run[0]) * _AHEAD * width
            end = min(start + int(run[-1] + 1) * _AHEAD * width, len(base))
            first -= first % mmap.PAGESIZE
            base.madvise(mmap.MADV_WILLNEED, first, end - first)
