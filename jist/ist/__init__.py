"""Independent subnet training of any tree of parameters whose layers name their neurons.

A model names them in the metadata of its variables, one entry for each axis:

    nnx.Linear(784, 100, rngs=rngs,
               kernel_metadata={"neurons": (None, "hidden")},
               bias_metadata={"neurons": ("hidden",)})
    nnx.Linear(100, 10, rngs=rngs, kernel_metadata={"neurons": ("hidden", None)})

`("heads", 64)` is an axis of 64 numbers for every head, `(49, "channels")` what flattening maps of
7 × 7 pixels makes of their channels. `check` says whether the names fit. How pieces travel is in
`jist.ist.exchange`.
"""

from jist.ist.assignment import Assignment as Assignment
from jist.ist.check import check as check
from jist.ist.exchange import average as average
from jist.ist.exchange import slots_per_owner as slots_per_owner
from jist.ist.neurons import Axes as Axes
from jist.ist.neurons import layer_widths as layer_widths
from jist.ist.neurons import neuron_axes as neuron_axes
from jist.ist.neurons import optimizer_axes as optimizer_axes
from jist.ist.neurons import unfolded as unfolded
from jist.ist.partition import SCHEMES as SCHEMES
from jist.ist.partition import partition as partition
from jist.ist.subnet import Parts as Parts
from jist.ist.subnet import cut as cut
from jist.ist.subnet import paste as paste
from jist.ist.subnet import subnet_shapes as subnet_shapes
