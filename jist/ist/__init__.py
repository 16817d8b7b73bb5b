"""Independent subnet training of any tree of parameters whose layers name their neurons.

How pieces travel is in `jist.ist.exchange`.
"""

from jist.ist.assignment import Assignment as Assignment
from jist.ist.exchange import average as average
from jist.ist.exchange import slots_per_owner as slots_per_owner
from jist.ist.neurons import Axes as Axes
from jist.ist.neurons import layer_widths as layer_widths
from jist.ist.neurons import neuron_axes as neuron_axes
from jist.ist.neurons import optimizer_axes as optimizer_axes
from jist.ist.partition import SCHEMES as SCHEMES
from jist.ist.partition import partition as partition
from jist.ist.subnet import Parts as Parts
from jist.ist.subnet import cut as cut
from jist.ist.subnet import paste as paste
from jist.ist.subnet import subnet_shapes as subnet_shapes
