"""A SciPy matrix in compressed sparse row format, as `scipy.sparse.save_npz` writes it."""

import dataclasses
import hashlib
import os
import zipfile

import numpy as np
from jaxtyping import Int

from jist.data.errors import DataError
from jist.ragged import Ragged

_FIELDS = ("format", "shape", "indptr", "indices", "data")


@dataclasses.dataclass(frozen=True, eq=False)
class SparseTable:
    """A matrix whose rows are sparse.

    Attributes:
        rows: {"indices": i32, "values": f32}.
        columns: number of columns.
    """

    rows: Ragged
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), self.columns

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self, rows: Int[np.ndarray, " some"]) -> str:
        """SHA-256 of some of the rows."""
        some = self.rows.rows(rows)
        digest = hashlib.sha256(f"sparse {len(some)} {self.columns}".encode())
        for array in (some.offsets, *some.entries.values()):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def labels(self) -> Ragged:
        """Where rows are not 0, each column once: rows of i32 with padding -1."""
        held = self.rows.entries["values"] != 0
        row = np.repeat(np.arange(len(self)), np.diff(self.rows.offsets))[held]
        places = np.unique(row * np.int64(self.columns) + self.rows.entries["indices"][held])
        counts = np.bincount(places // max(1, self.columns), minlength=len(self))
        return Ragged.of(counts, (places % max(1, self.columns)).astype(np.int32), fill=-1)


def is_sparse(names: list[str]) -> bool:
    """Whether arrays of these names are a sparse matrix of SciPy, of whatever format."""
    return {"format", "shape"} <= {*names}


def load_csr(path: str | os.PathLike) -> tuple[Ragged, int]:
    """Reads a sparse matrix; nothing is unpickled.

    Args:
        path: the `.npz` file.

    Returns:
        The rows, {"indices": i32, "values": f32}, and the number of columns.

    Raises:
        DataError: the file cannot be read, holds another kind of matrix, or its arrays do not fit
            together; the message names the row.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is no archive of arrays (.npz)")
        with loaded as file:
            kind = file["format"].item() if "format" in file.files else b"csr"
            kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
            if kind != "csr":
                raise DataError(f"{path} must hold a matrix of format 'csr', got {kind!r}")
            missing = [name for name in _FIELDS if name not in file.files]
            if missing:
                raise DataError(
                    f"{path} is no sparse matrix of scipy.sparse.save_npz: no {', '.join(missing)}"
                )
            shape, indptr, indices, data = (file[name] for name in _FIELDS[1:])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for name, array in (("shape", shape), ("indptr", indptr), ("indices", indices)):
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{path}: {name} must be integers, got {array.dtype} {array.shape}")
    if data.dtype.kind not in "fiub":
        raise DataError(f"{path}: data must be numbers, got {data.dtype}")
    rows, columns = shape.tolist()
    lengths = np.diff(indptr)
    if len(indptr) != rows + 1 or indptr[0] != 0 or (lengths < 0).any():
        raise DataError(f"{path}: indptr does not divide the entries into {rows} rows")
    if not len(indices) == len(data) == indptr[-1]:
        raise DataError(
            f"{path}: indptr says {indptr[-1]} entries, there are {len(indices)} indices and "
            f"{len(data)} values"
        )
    with np.errstate(over="ignore"):  # which is told below
        values = data.astype(np.float32)
    for wrong, what in (
        ((indices < 0) | (indices >= columns), f"an index is not in [0, {columns})"),
        (~np.isfinite(values), "a value is not finite in float32"),
    ):
        if wrong.any():
            row = np.searchsorted(indptr, np.flatnonzero(wrong)[0], side="right") - 1
            raise DataError(f"{path}, row {row}: {what}")
    return Ragged.of(lengths, {"indices": indices.astype(np.int32), "values": values}), columns
