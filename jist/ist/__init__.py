"""Independent subnet training of any tree of parameters whose layers name their neurons.

A model names them in the metadata of its variables, one entry for each axis:

    nnx.Linear(784, 100, rngs=rngs,
               kernel_metadata={"neurons": (None, "hidden")},
               bias_metadata={"neurons": ("hidden",)})
    nnx.Linear(100, 10, rngs=rngs, kernel_metadata={"neurons": ("hidden", None)})

`("heads", 64)` is an axis of 64 numbers for every head, `(49, "channels")` what flattening maps of
7 × 7 pixels makes of their channels; of the neurons of `"blocks?"` a worker may have none. `check`
says whether the names fit. How pieces travel is in `jist.ist.exchange`.
"""

from jist.ist.assignment import Assignment
from jist.ist.check import check
from jist.ist.exchange import average, slots_per_owner
from jist.ist.neurons import Axes, layer_widths, neuron_axes, optimizer_axes, unfolded
from jist.ist.partition import SCHEMES, partition
from jist.ist.subnet import Parts, cut, paste, subnet_shapes

__all__ = [
    "SCHEMES",
    "Assignment",
    "Axes",
    "Parts",
    "average",
    "check",
    "cut",
    "layer_widths",
    "neuron_axes",
    "optimizer_axes",
    "partition",
    "paste",
    "slots_per_owner",
    "subnet_shapes",
    "unfolded",
]
