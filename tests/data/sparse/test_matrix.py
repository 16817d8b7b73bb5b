"""SciPy's sparse matrices from disk, and files that are none."""

import numpy as np
import pytest
import scipy.sparse

from jist.data import DataError
from jist.data.sparse import load_csr

MATRIX = scipy.sparse.random_array((7, 5), density=0.3, random_state=0, format="csr")


def test_a_matrix_of_scipy_is_read(tmp_path):
    scipy.sparse.save_npz(tmp_path / "x.npz", MATRIX)
    rows, columns = load_csr(tmp_path / "x.npz")
    assert (len(rows), columns) == (7, 5)
    dense = np.zeros((7, 5), np.float32)
    batch = rows[np.arange(7)]
    np.add.at(dense, (np.arange(7)[:, None], batch["indices"]), batch["values"])
    np.testing.assert_allclose(dense, MATRIX.toarray(), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"indices": np.full(MATRIX.nnz, 5)}, r"row 0: an index is not in \[0, 5\)"),
        ({"data": np.full(MATRIX.nnz, np.nan)}, r"row 0: a value is not finite"),
        ({"data": np.full(MATRIX.nnz, 1e300)}, r"row 0: a value is not finite in float32"),
        ({"data": MATRIX.data[1:]}, r"indptr says \d+ entries, there are \d+ indices and \d+ val"),
        ({"indptr": MATRIX.indptr[::-1]}, r"indptr does not divide the entries into 7 rows"),
        ({"indptr": MATRIX.indptr[1:]}, r"indptr does not divide the entries into 7 rows"),
        ({"format": b"csc"}, r"must hold a matrix of format 'csr', got 'csc'"),
        ({"format": None}, r"is no sparse matrix of scipy.sparse.save_npz: no format"),
        ({"data": np.array([{}] * MATRIX.nnz)}, r"cannot be read: Object arrays cannot be loaded"),
        ({"data": np.array(["a"] * MATRIX.nnz)}, r"data must be numbers, got <U1"),
        ({"indices": MATRIX.indices * 1.0}, r"indices must be integers, got float64"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, change, says):
    arrays = {
        "format": b"csr",
        "shape": np.array(MATRIX.shape),
        "indptr": MATRIX.indptr,
        "indices": MATRIX.indices,
        "data": MATRIX.data,
    }
    arrays = {name: value for name, value in (arrays | change).items() if value is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=says):
        load_csr(tmp_path / "x.npz")


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x.npz cannot be read"):
        load_csr(tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", MATRIX.data)
    with pytest.raises(DataError, match=r"x.npy"):
        load_csr(tmp_path / "x.npy")
