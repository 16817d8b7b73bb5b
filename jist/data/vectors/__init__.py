"""Ready-made features: files of vectors and labels that anybody can write.

`reading` opens a file of any known format, `labelling` turns its labels into classes, `vectors`
finds the files of a path and splits them.
"""

from jist.data.vectors.reading import SUFFIXES, read_columns
from jist.data.vectors.vectors import Vectors, load_vectors

__all__ = ["SUFFIXES", "Vectors", "load_vectors", "read_columns"]
