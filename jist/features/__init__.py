"""CLS features of a data set by a frozen encoder: stored on disk, or recomputed in every epoch.

Modules, in the order of the data: `visible` finds the visible patches of each image, `encoding` and
`by_length` encode them, `extraction` writes the features in the format that `stored` defines and
reads; `random_masks` encodes the images again in every epoch. `speech` writes the log-mel features
of clips in the same format, `augmented_speech` computes them anew in every epoch;
`tables` writes features as one file for other programs.
"""

from jist.features.augmented_speech import AugmentedClips
from jist.features.encoding import (
    POOLS,
    cls_vectors,
    encode_batches,
    exact_products,
    feature_dim,
    in_parts,
    place_weights,
)
from jist.features.extraction import extract
from jist.features.random_masks import EpochEncoder
from jist.features.speech import extract_speech
from jist.features.stored import CHUNK, Features, load

__all__ = [
    "CHUNK",
    "POOLS",
    "AugmentedClips",
    "EpochEncoder",
    "Features",
    "cls_vectors",
    "encode_batches",
    "exact_products",
    "extract",
    "extract_speech",
    "feature_dim",
    "in_parts",
    "load",
    "place_weights",
]
