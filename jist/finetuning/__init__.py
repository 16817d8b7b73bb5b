"""Fine-tuning of an encoder with its head, from visible patches to the class.

`views` makes random views of masked images, `images` holds a data set ready for `jist.trainer`,
`optimizer` trains layers near the input more slowly, or a network from scratch. The network is
`jist.models.Classifier`, or an `ImageClassifier` of whole images.
"""

from jist.finetuning.images import MASKS, MaskedImages, read_images
from jist.finetuning.optimizer import adamw_by_depth, momentum_sgd
from jist.finetuning.views import Cropped, Mirrored

__all__ = [
    "MASKS",
    "Cropped",
    "MaskedImages",
    "Mirrored",
    "adamw_by_depth",
    "momentum_sgd",
    "read_images",
]
