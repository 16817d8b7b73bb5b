"""Data sets by name, and the order in which each worker sees the examples.

`loading` finds a data set by name; `dataset` defines what all of them have in common; `holdout`
splits them; `pools` assigns examples to workers; `order` gives the order in which a worker sees
them. Everything about images is in `images`.
"""

from jist.data.dataset import Dataset as Dataset
from jist.data.dataset import example_id as example_id
from jist.data.errors import DataError as DataError
from jist.data.errors import EmptyImageError as EmptyImageError
from jist.data.errors import UnreadableImageError as UnreadableImageError
from jist.data.images.decoding import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from jist.data.images.decoding import read_image as read_image
from jist.data.images.decoding import resize as resize
from jist.data.images.folder import is_image as is_image
from jist.data.images.masked import MaskedImages as MaskedImages
from jist.data.images.missing import read_with_missing as read_with_missing
from jist.data.images.natural import NaturalMasks as NaturalMasks
from jist.data.images.pipeline import Batch as Batch
from jist.data.images.pipeline import batches as batches
from jist.data.loading import load_dataset as load_dataset
from jist.data.order import steps_until as steps_until
from jist.data.order import worker_order as worker_order
