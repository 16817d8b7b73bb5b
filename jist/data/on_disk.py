"""Rows that stay on disk and are read when they are used: for features larger than memory."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class OnDisk:
    """Some rows of a table of numbers [M, D] on disk, as float32.

    It is indexed like an array [N, D] along its first axis, and takes an array's place among
    training and test examples (`jist.trainer.train`).

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

    @property
    def ndim(self) -> int:
        """Two axes."""
        return 2

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return self.dtype.itemsize * self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(
        self, which: slice | Int[np.ndarray, " some"] | np.ndarray
    ) -> Float[np.ndarray, "some dim"]:
        """Reads rows: those of a slice, of an array of indices, or where bool [N] is true."""
        wanted = self.rows[which]
        # In their order on disk, each page once.
        order = np.argsort(wanted, kind="stable")
        found = np.empty((len(wanted), self.shape[1]), np.float32)
        found[order] = self.table[wanted[order]]
        return found

    def some(self, rows: np.ndarray) -> "OnDisk":
        """The rows where `rows`, bool [N], is true; still on disk."""
        return OnDisk(self.table, self.rows[rows])
