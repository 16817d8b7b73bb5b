"""The frozen encoder over a data set: CLS features on disk, or anew in every epoch.

Modules, in the order the data passes through them: `visible` finds what is visible of each image,
`encoding` and `by_length` encode it, `extraction` writes the features, whose form on disk is that
of `stored`; `random_masks` encodes the images again in every epoch.
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
