"""Images by name, labelled or not, decoded and resized, in batches.

Modules, in the order the data passes through them: `loading` finds a data set by name (`digits`,
`folder`, `unlabelled`, `cifar10`, `scenes`, `masked`), `images` decodes and resizes one image and
`missing` its missing regions, `natural` says where those come from, `pipeline` does all that for
many in parallel, and `order` says in which order each worker sees the examples.
"""

from jist.data.dataset import Dataset as Dataset
from jist.data.dataset import example_id as example_id
from jist.data.errors import DataError as DataError
from jist.data.errors import EmptyImageError as EmptyImageError
from jist.data.errors import UnreadableImageError as UnreadableImageError
from jist.data.folder import is_image as is_image
from jist.data.images import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from jist.data.images import read_image as read_image
from jist.data.images import resize as resize
from jist.data.loading import load_dataset as load_dataset
from jist.data.masked import MaskedImages as MaskedImages
from jist.data.missing import read_with_missing as read_with_missing
from jist.data.natural import NaturalMasks as NaturalMasks
from jist.data.order import steps_until as steps_until
from jist.data.order import worker_order as worker_order
from jist.data.pipeline import Batch as Batch
from jist.data.pipeline import batches as batches
