"""Data sets by name, and the order in which each worker sees the examples.

`loading` finds a data set by name; `dataset` defines what all of them have in common; `holdout`
splits them; `pools` assigns examples to workers; `order` gives the order in which a worker sees
them; `on_disk` is for features larger than memory. Everything about images is in `images`, about
spoken words in `speech`, about sparse rows in `sparse`, about ready-made features in `vectors`.
"""

from jist.data.dataset import Dataset, Examples, check_learnable, example_id
from jist.data.errors import DataError, EmptyImageError, UnreadableImageError
from jist.data.images.decoding import IMAGE_SUFFIXES, read_image
from jist.data.images.masked import MaskedImages
from jist.data.images.missing import read_with_missing
from jist.data.images.natural import NaturalMasks
from jist.data.images.pipeline import Batch, batches
from jist.data.images.resizing import resize
from jist.data.images.walk import image_keys, is_image, say_passed_over
from jist.data.loading import load_dataset, splits_of
from jist.data.on_disk import OnDisk
from jist.data.order import steps_until, worker_order
from jist.data.subset import Subset, subset

__all__ = [
    "IMAGE_SUFFIXES",
    "Batch",
    "DataError",
    "Dataset",
    "EmptyImageError",
    "Examples",
    "MaskedImages",
    "NaturalMasks",
    "OnDisk",
    "Subset",
    "UnreadableImageError",
    "batches",
    "check_learnable",
    "example_id",
    "image_keys",
    "is_image",
    "load_dataset",
    "read_image",
    "read_with_missing",
    "resize",
    "say_passed_over",
    "splits_of",
    "steps_until",
    "subset",
    "worker_order",
]
