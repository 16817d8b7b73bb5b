"""Fine-tuning of an encoder with its head, from visible patches to the class.

`views` makes random views of masked images, `images` holds a data set ready for `jist.trainer`,
`optimizer` trains layers near the input more slowly. The network is `jist.models.Classifier`.
"""

from jist.finetuning.images import MASKS, MaskedImages
from jist.finetuning.optimizer import adamw_by_depth
from jist.finetuning.views import Cropped, Mirrored

__all__ = ["MASKS", "Cropped", "MaskedImages", "Mirrored", "adamw_by_depth"]
