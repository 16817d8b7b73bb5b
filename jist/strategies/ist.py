"""Independent subnet training.

Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine: Distributed Learning of Fully Connected Neural
Networks using Independent Subnet Training. VLDB 2022.

Every round the hidden neurons are assigned to the workers at random, each worker trains only the
parameters between its own neurons for J local steps, the pieces are put back together, and the
neurons are assigned anew. No parameter between neurons is on two workers, so nothing collides.
"""

from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array

from jist import costs, ist
from jist.ist import exchange as travel
from jist.ragged import batch_shapes
from jist.strategies.fresh import FreshState
from jist.strategies.local import Examples, Loss, softmax_cross_entropy, worker_metrics
from jist.strategies.strategy import OPTIMIZER_STATES, State, Strategy

EXCHANGES = ("replicated", "sharded")


class IST(Strategy):
    """Independent subnet training (VLDB 2022, §2.1).

    Args:
        model: as for `Strategy`; its parameters name their neurons (`jist.ist.neuron_axes`).
        optimizer: each worker's optimiser.
        workers: number of workers n, at most the narrowest layer's width; need not divide it.
        local_steps: number J of optimiser steps of a worker in a full round.
        partition: how neurons are assigned, "uniform" or "stratified" (`jist.ist.partition`).
        exchange: how pieces travel. "replicated": every device holds the full parameters, and the
            trained pieces are all-gathered. "sharded": every device holds 1/D of the parameters
            and sends out and takes back subnetworks by all-to-all; needs a stratified partition and
            widths that the devices divide.
        exchange_dtype: type in which parameters and optimiser states travel, e.g. bfloat16; their
            own by default.
        optimizer_state: "reset" starts the optimiser anew every round; "carry" moves every
            parameter-shaped leaf of its state along with the neurons.
        shares: each worker's share of the neurons, for workers of unequal strength; needs a uniform
            partition. Narrow subnets are padded to the widest, so this saves no time in simulation.
        loss: as for `Strategy`.
        mesh: as for `Strategy`.

    Raises:
        ValueError: as for `Strategy`; an unknown option; no neurons named, or one name for two
            widths; more workers than neurons; a sharded exchange without a stratified partition, or
            with a width that the devices do not divide.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        partition: str = "uniform",
        exchange: str = "replicated",
        exchange_dtype: DTypeLike | None = None,
        optimizer_state: str = "carry",
        shares: Sequence[float] | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        for name, value, allowed in (
            ("partition", partition, ist.SCHEMES),
            ("exchange", exchange, EXCHANGES),
            ("optimizer_state", optimizer_state, OPTIMIZER_STATES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        if exchange == "sharded" and partition != "stratified":
            raise ValueError(f"exchange='sharded' needs partition='stratified', got {partition!r}")
        self._sharded = exchange == "sharded"
        self._wire = exchange_dtype
        self._carry = optimizer_state == "carry"
        self._assignment = ist.Assignment(model, workers, partition, shares)
        if self._carry:
            params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
            self._opt_axes = ist.optimizer_axes(optimizer, params, self._assignment.axes)
        super().__init__(
            model, optimizer, workers=workers, local_steps=local_steps, loss=loss, mesh=mesh
        )
        self._fresh = FreshState(optimizer, self._params)
        if self._sharded:
            travel.check_owners(self._assignment.widths, self.mesh.size)

    def bytes_received(self, rounds: int, steps: int) -> int:
        """What the exchange brings a worker every round, on a device of its own.

        Replicated: the other workers' pieces. Sharded: the n - 1 n-ths of its next subnet that live
        elsewhere, and as much again of what lives with it, trained elsewhere. The optimiser's state
        likewise where it is carried.
        """
        trees = [(self._params, self._assignment.axes)]
        if self._carry:
            trees.append((jax.eval_shape(self._optimizer.init, self._params), self._opt_axes))
        if self._sharded:
            sizes = [costs.sharded_bytes(t, axes, self.workers, self._wire) for t, axes in trees]
        else:
            widths = self._assignment.part_widths
            sizes = [
                costs.replicated_bytes(t, axes, widths, self.workers, self._wire)
                for t, axes in trees
            ]
        return rounds * sum(sizes)

    def _param_specs(self) -> Any:
        if not self._sharded:
            return super()._param_specs()
        return travel.owner_specs(self._params, self._assignment.axes)

    def _state_specs(self) -> State:
        opt_state: Any = P()
        if self._sharded and self._carry:
            shapes = jax.eval_shape(self._optimizer.init, self._params)
            opt_state = travel.owner_specs(shapes, self._opt_axes)
        return State(self._param_specs(), opt_state, P(), P())

    def _check(self, examples: Examples, batch_size: int) -> None:
        self._assignment.check(self._local.loss, batch_shapes(examples, batch_size))

    def _worker_shapes(self) -> tuple[Any, Any]:
        return self._assignment.subnet_shapes(self._params, self._rest)

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        opt_state = self._optimizer.init(params)
        return params, opt_state if self._carry else self._fresh.kept(opt_state)

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        parts = self._assignment.parts(jax.random.fold_in(state.key, state.round))
        if self._sharded:
            parts = travel.sort_by_owner(parts, self._assignment.widths, self.mesh.size)
        own = self._assignment.own(parts, len(order))
        params = self._take(state.params, self._assignment.axes, parts, own)
        if self._carry:
            opt_state = self._take(state.opt_state, self._opt_axes, parts, own)
        else:
            opt_state = jax.vmap(lambda own: self._fresh.start(own, state.opt_state))(params)

        params, opt_state, losses = self._local.steps_of_all(
            params,
            ist.cut(rest, self._assignment.rest_axes, own),
            opt_state,
            examples,
            order,
            self._assignment.mask(own),
            self._worker_keys(state, len(order)),
            in_turn=self._on_cpu,
        )

        if self._carry:
            opt_state = self._give(state.opt_state, opt_state, self._opt_axes, parts)
        else:  # counters, which advance alike on all workers
            opt_state = jax.tree.map(lambda leaf: leaf[0], self._fresh.kept(opt_state))
        state = State(
            params=self._give(state.params, params, self._assignment.axes, parts),
            opt_state=opt_state,
            round=state.round + 1,
            key=state.key,
        )
        return state, worker_metrics(losses)

    def _take(self, tree: Any, axes: Any, parts: ist.Parts, own: ist.Parts) -> Any:
        """The subnets of this device's workers."""
        if self._sharded:
            return travel.send_out(tree, axes, parts, self.mesh.size, self._wire)
        return ist.cut(tree, axes, own)

    def _give(self, tree: Any, pieces: Any, axes: Any, parts: ist.Parts) -> Any:
        """What this device holds, with the trained pieces in their places."""
        if self._sharded:
            return travel.send_back(tree, pieces, axes, parts, self.mesh.size, self._wire)
        return travel.gather_pieces(tree, pieces, axes, parts, self._wire)
