"""Sparse examples: the Extreme Classification Repository's text, and matrices of SciPy.

`text` parses sparse rows, `repository` finds the files of a split, `matrix` reads a SciPy matrix;
`synthetic` makes examples of the size of Amazon-670k up.
"""

from jist.data.sparse.matrix import SparseTable, load_csr
from jist.data.sparse.repository import SparseExamples, load_xc, load_xc_features

__all__ = ["SparseExamples", "SparseTable", "load_csr", "load_xc", "load_xc_features"]
