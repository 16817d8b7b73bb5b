"""The assignment of a model's neurons to workers: what a strategy needs to cut subnetworks out."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from jist.ist.check import check
from jist.ist.exchange import of_device
from jist.ist.neurons import (
    Axes,
    layer_of,
    layer_widths,
    neuron_axes,
    repeats,
    statistics_axes,
)
from jist.ist.partition import partition, slots
from jist.ist.subnet import Parts, subnet_shapes


class Assignment:
    """How a model's neurons are assigned to n workers.

    Args:
        model: the full network; its parameters name their neurons.
        workers: number of workers n.
        scheme: as for `partition`.
        shares: as for `partition`.
        replicas: as for `partition`.

    Attributes:
        axes: the layers of neurons along the axes of the parameters (`neuron_axes`).
        rest_axes: the same of the variables that are not parameters.
        widths: {layer: number of neurons}.
        part_widths: {layer: number of neurons in the widest subnet}.

    Raises:
        ValueError: as `neuron_axes`, `layer_widths` and `partition`.
    """

    def __init__(
        self,
        model: nnx.Module,
        workers: int,
        scheme: str,
        shares: Sequence[float] | None = None,
        replicas: int = 1,
    ):
        self._model = nnx.eval_shape(lambda: nnx.clone(model))
        self._checked = False
        self.axes = neuron_axes(model)
        params, rest = (
            nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.Not(nnx.Param))
        )
        self.rest_axes = statistics_axes(model, self.axes)
        self.widths = layer_widths(params, self.axes)
        layer_widths((params, rest), (self.axes, self.rest_axes))  # raises for other widths
        self._workers = workers
        self._scheme = scheme
        self._shares = shares
        self._replicas = replicas
        # Traced once without computing, so that wrong arguments raise now.
        jax.eval_shape(self.parts, jax.random.key(0))
        self.part_widths = {
            layer: replicas * slots(layer, width, workers, shares).shape[1]
            for layer, width in self.widths.items()
        }

    def parts(self, key: PRNGKeyArray, round_number: Array | int = 0) -> dict[str, Array]:
        """The neurons of every worker, {layer: i32 [workers, part]}, as `partition`."""
        return partition(
            key,
            self.widths,
            self._workers,
            self._scheme,
            shares=self._shares,
            replicas=self._replicas,
            round_number=round_number,
        )

    def check(self, loss: Callable[[nnx.Module, Any], Any], batch: Any) -> None:
        """Checks once, on the shapes of a batch, that the model can be cut (`jist.ist.check`).

        Args:
            loss: maps a model and a batch to a scalar.
            batch: tree of the batch's shapes [B, ...].

        Raises:
            ValueError: it cannot.
        """
        if not self._checked:
            check(self._model, loss, batch)
            self._checked = True

    def own(self, parts: Parts, local: int) -> dict[str, Array]:
        """The parts of the `local` workers of this device, inside a `shard_map` over "workers"."""
        return {layer: of_device(rows, local) for layer, rows in parts.items()}

    def subnet_shapes(self, params: Any, rest: Any) -> tuple[Any, Any]:
        """Shapes of the widest subnet's parameters and of its other variables."""
        return (
            subnet_shapes(params, self.axes, self.part_widths),
            subnet_shapes(rest, self.rest_axes, self.part_widths),
        )

    def mask(self, own: Parts) -> Any:
        """1 where a subnet holds a parameter, 0 where it is padded; None without any padding.

        A tree like the parameters, [workers, ...], with axes of length 1 where all is alike.
        """
        slots = {name: rows.shape[1] * self._workers for name, rows in own.items()}
        if all(slots[name] == self._replicas * width for name, width in self.widths.items()):
            return None
        held = {layer: rows < self.widths[layer] for layer, rows in own.items()}
        workers = len(next(iter(own.values())))

        def leaf(axes: Axes) -> Array:
            mask = jnp.ones((workers, *[1] * len(axes)))
            for number, axis in enumerate(axes):
                name = layer_of(axis)
                if name is not None:
                    before, after = repeats(axis)
                    along = jnp.tile(jnp.repeat(held[name], after, axis=1), (1, before))
                    others = [1 + i for i in range(len(axes)) if i != number]
                    mask = mask * jnp.expand_dims(along, others)
            return mask

        return jax.tree.map(leaf, self.axes, is_leaf=lambda node: isinstance(node, tuple))
