"""Some rows of a file of vectors."""

import dataclasses
import functools
import hashlib
import pathlib

import numpy as np
from jaxtyping import Float, Int

from jist.data.errors import DataError
from jist.data.on_disk import OnDisk
from jist.data.sparse.matrix import SparseTable
from jist.ragged import Ragged

_BLOCK_BYTES = 64e6  # read at a time, so that checking needs no memory


def not_finite(values: np.ndarray) -> tuple[tuple[int, ...], str] | None:
    """Where the first number is that float32 cannot hold, and what to say of it.

    Args:
        values: numbers of any type and shape.
    """
    if values.dtype.kind != "f":
        return None  # the greatest integer is far below
    with np.errstate(over="ignore"):  # which is told
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if finite.all():
        return None
    where = tuple(np.argwhere(~finite)[0].tolist())
    value = values[where]
    return where, f"{value}, beyond float32" if np.isfinite(value) else f"{value}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TableRows:
    """Some of the vectors of a file, dense or sparse.

    Attributes:
        path: their file.
        rows: which rows of `table` they are, ascending [N].
        table: the vectors of the file, numbers of any type, in memory or mapped; or sparse rows.
    """

    path: pathlib.Path
    rows: Int[np.ndarray, " examples"]
    table: np.ndarray | SparseTable

    @property
    def dim(self) -> int:
        """The length D of a vector."""
        return self.table.shape[1]

    def sparse(self) -> Ragged | None:
        """All vectors as sparse rows {"indices", "values"}; None where the file has no such."""
        return self.table.rows.rows(self.rows) if isinstance(self.table, SparseTable) else None

    def read(self) -> Float[np.ndarray, "examples dim"]:
        """All vectors [N, D] float32, in memory."""
        assert isinstance(self.table, np.ndarray)
        whole = len(self.rows) == len(self.table)
        return np.asarray(self.table if whole else self.table[self.rows], np.float32)

    def on_disk(self) -> OnDisk:
        """The same vectors, read when they are used where their file is mapped."""
        assert isinstance(self.table, np.ndarray)
        return OnDisk(self.table, self.rows)

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the vectors.

        Raises:
            DataError: a number is not finite, or not as float32; file and row are named.
        """
        if isinstance(self.table, SparseTable):
            return self.table.digest(self.rows)
        digest = hashlib.sha256(f"{self.table.dtype} {self.table.shape}".encode())
        block = max(1, int(_BLOCK_BYTES / max(1, self.table.itemsize * self.dim)))
        for start in range(0, len(self.rows), block):
            rows = self.rows[start : start + block]
            whole = rows[-1] - rows[0] + 1 == len(rows)
            values = self.table[rows[0] : rows[-1] + 1] if whole else self.table[rows]
            wrong = not_finite(values)
            if wrong is not None:
                (row, column), said = wrong
                raise DataError(f"{self.path}, row {rows[row]}: feature {column} is {said}")
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()
