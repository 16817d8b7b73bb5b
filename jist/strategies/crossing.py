"""What a crossed partition needs beside its rounds (`jist.ist.crossed`, `jist.ist.handover`).

A first order, parameters that lie in it, and the way back to a network whose neurons are in order.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from jist import ist
from jist.ist import crossed, handover
from jist.placement import place


class Crossing:
    """How parameters lie where every worker holds its neurons.

    Args:
        assignment: of the model's neurons.
        workers: number of workers n.
        mesh: the devices.
        specs: how the parameters lie on them.
    """

    def __init__(self, assignment: ist.Assignment, workers: int, mesh: Mesh, specs: Any):
        self._axes, self._widths = assignment.axes, assignment.widths
        self._workers, self._mesh, self._specs = workers, mesh, specs

    def first_order(self) -> dict[str, Int[np.ndarray, " _"]]:
        """The order of the neurons before the first round."""
        return {
            layer: crossed.first_order(width, self._workers)
            for layer, width in self._widths.items()
        }

    def placed(self, params: Any) -> Any:
        """The initial parameters, of the host, on the devices; one after the other is copied."""
        order = self.first_order()

        def placed(array: np.ndarray, axes: ist.Axes, spec: P) -> Array:
            sharding = NamedSharding(self._mesh, spec)
            return place(handover.in_slots(array, axes, order), sharding)

        return jax.tree.map(placed, params, self._axes, self._specs)

    @functools.cached_property
    def at_owners(self) -> Any:
        """Maps parameters and the order to the parameters of the full network, shard by shard."""

        def on_device(params: Any, order: dict[str, Array]) -> Any:
            held = {layer: row.reshape(self._workers, -1) for layer, row in order.items()}
            return handover.at_owners(params, self._axes, held, self._mesh.size)

        specs = self._specs
        return jax.jit(
            jax.shard_map(
                on_device, mesh=self._mesh, in_specs=(specs, P()), out_specs=specs, check_vma=False
            )
        )
