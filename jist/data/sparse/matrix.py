"""A SciPy matrix in compressed sparse row format, as `scipy.sparse.save_npz` writes it."""

import os
import zipfile

import numpy as np

from jist.data.errors import DataError
from jist.ragged import Ragged

_FIELDS = ("format", "shape", "indptr", "indices", "data")


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
            missing = [name for name in _FIELDS if name not in file.files]
            if missing:
                raise DataError(
                    f"{path} is no sparse matrix of scipy.sparse.save_npz: no {', '.join(missing)}"
                )
            form, shape, indptr, indices, data = (file[name] for name in _FIELDS)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    kind = form.item()
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    if kind != "csr":
        raise DataError(f"{path} must hold a matrix of format 'csr', got {kind!r}")
    for name, array in (("shape", shape), ("indptr", indptr), ("indices", indices)):
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{path}: {name} must be integers, got {array.dtype} {array.shape}")
    if not np.issubdtype(data.dtype, np.number) or np.issubdtype(data.dtype, np.complexfloating):
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
    values = data.astype(np.float32)
    for wrong, what in (
        ((indices < 0) | (indices >= columns), f"an index is not in [0, {columns})"),
        (~np.isfinite(values), "a value is not finite"),
    ):
        if wrong.any():
            row = np.searchsorted(indptr, np.flatnonzero(wrong)[0], side="right") - 1
            raise DataError(f"{path}, row {row}: {what}")
    return Ragged.of(lengths, {"indices": indices.astype(np.int32), "values": values}), columns
