"""Ready-made features: files of vectors and labels that anybody can write.

`reading` opens a file of any known format, `labelling` turns its labels into classes, `vectors`
finds the files of a path and splits them; `label_rows` and `many_labels` do so where a row may have
several labels.
"""

from jist.data.vectors.columns import Columns, in_order_of
from jist.data.vectors.many_labels import LabelledVectors, have_many_labels, many_labelled
from jist.data.vectors.reading import SUFFIXES, read_columns, read_features
from jist.data.vectors.vectors import Vectors, load_vectors, read_files, splits_in, vectors_of

__all__ = [
    "SUFFIXES",
    "Columns",
    "LabelledVectors",
    "Vectors",
    "have_many_labels",
    "in_order_of",
    "load_vectors",
    "many_labelled",
    "read_columns",
    "read_features",
    "read_files",
    "splits_in",
    "vectors_of",
]
