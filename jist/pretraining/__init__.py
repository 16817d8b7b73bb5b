"""Pre-training of masked autoencoders on unlabelled images.

Modules, in the order of a step: `augment` makes random views, `step` masks them and takes one step
of the optimiser, `loop` repeats it over a data set, with checkpoints and metrics.
"""

from jist.pretraining.augment import random_view
from jist.pretraining.loop import Resident, Streamed, pretrain
from jist.pretraining.step import Pretraining, PretrainingState, adamw

__all__ = [
    "Pretraining",
    "PretrainingState",
    "Resident",
    "Streamed",
    "adamw",
    "pretrain",
    "random_view",
]
