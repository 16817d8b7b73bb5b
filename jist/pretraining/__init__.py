"""Pre-training of masked autoencoders on unlabelled images.

Modules, in the order of a step: `augment` makes random views, `step` masks them and takes one step
of the optimiser, `loop` repeats it over a data set, with checkpoints and metrics.
"""

from jist.pretraining.augment import random_view as random_view
from jist.pretraining.loop import Resident as Resident
from jist.pretraining.loop import Streamed as Streamed
from jist.pretraining.loop import pretrain as pretrain
from jist.pretraining.step import Pretraining as Pretraining
from jist.pretraining.step import PretrainingState as PretrainingState
from jist.pretraining.step import adamw as adamw
