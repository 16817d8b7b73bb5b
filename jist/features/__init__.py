"""CLS features of a data set by a frozen encoder: stored on disk, or recomputed in every epoch.

Modules, in the order of the data: `visible` finds the visible patches of each image, `encoding` and
`by_length` encode them, `extraction` writes the features in the format that `stored` defines and
reads; `random_masks` encodes the images again in every epoch.
"""

from jist.features.encoding import cls_vectors as cls_vectors
from jist.features.encoding import encode_batches as encode_batches
from jist.features.encoding import exact_products as exact_products
from jist.features.encoding import in_parts as in_parts
from jist.features.encoding import place_weights as place_weights
from jist.features.extraction import extract as extract
from jist.features.random_masks import EpochEncoder as EpochEncoder
from jist.features.stored import CHUNK as CHUNK
from jist.features.stored import Features as Features
from jist.features.stored import load as load
