"""Independent subnet training.

Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine: Distributed Learning of Fully Connected Neural
Networks using Independent Subnet Training. VLDB 2022.

Every round the hidden neurons are assigned to the workers at random, each worker trains only the
parameters between its own neurons for J local steps, the pieces are put back together, and the
neurons are assigned anew. No parameter between neurons is on two workers, so nothing collides.

What a subnetwork lacks may be reconstructed, where the model says so
(`jist.strategies.reconstructing`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jist import ist
from jist.ist import crossed
from jist.ist import exchange as travel
from jist.ragged import batch_shapes
from jist.strategies.choosing import EXCHANGES, Question, choose
from jist.strategies.crossing import Crossing
from jist.strategies.exchanges import Dealt, Exchange, give_changes
from jist.strategies.fresh import FreshState
from jist.strategies.local import Examples, Loss, softmax_cross_entropy, worker_metrics
from jist.strategies.outer import outer_step_of_trained
from jist.strategies.reconstructing import Reconstructing
from jist.strategies.state import State
from jist.strategies.strategy import OPTIMIZER_STATES, Strategy

PARTITIONS = (*ist.SCHEMES, "crossed")


class IST(Strategy):
    """Independent subnet training (VLDB 2022, §2.1).

    Args:
        model: as for `Strategy`; its parameters name their neurons (`jist.ist.neuron_axes`).
        optimizer: each worker's optimiser.
        workers: number of workers n, at most the narrowest layer's width; need not divide it.
        local_steps: number J of optimiser steps of a worker in a full round.
        partition: how neurons are assigned: "uniform", "stratified" or "rolling"
            (`jist.ist.partition`), or "crossed" (`jist.ist.crossed`).
        exchange: how pieces travel. "replicated": every device holds the full parameters, and the
            trained pieces are all-gathered. "sharded": every device holds 1/D of the parameters
            and sends out and takes back subnetworks by all-to-all; needs a stratified partition and
            widths that the devices divide. "direct": a device holds what its workers have trained
            and sends it straight on to the next, half the bytes; that of a crossed partition, and
            of no other. "auto": "direct" where the partition is crossed; "sharded" between several
            devices where it is possible and a device receives no more bytes (it holds less in any
            case); else "replicated". The partition, and so what is computed, is never changed for
            it.
        exchange_dtype: type in which parameters and optimiser states travel, e.g. bfloat16, or
            "log8" for logarithmic codes of 8 bits (`jist.ist.wire`); their own by default. Trained
            parameters then travel as changes, so that owners keep what rounding leaves out; where
            neurons are sent straight on nobody does, and "log8" is refused.
        state_dtype: type in which optimiser states travel, by default `exchange_dtype`.
        optimizer_state: "reset" starts the optimiser anew every round; "carry" moves every
            parameter-shaped leaf of its state along with the neurons.
        shares: each worker's share of the neurons, for workers of unequal strength; needs a uniform
            partition. Narrow subnets are padded to the widest, so this saves no time in simulation.
        replicas: how many workers have each neuron, by default one; what they have trained is
            averaged. Not with shares, nor with a sharded exchange.
        participation: share of the workers that takes part in a round, in (0, 1]. Neurons of those
            that are absent keep their values.
        outer: optimiser of what a round has changed, e.g. `jist.strategies.nesterov()`; by default
            the changes are taken as they are. Its state belongs to the parameters of the full
            network; parameters that a round did not train stand still.
        ema_decay: as for `Strategy`; not of a crossed partition, whose neurons change places.
        loss: as for `Strategy`.
        mesh: as for `Strategy`.

    Attributes:
        exchange_reason: why this exchange, in words.

    Raises:
        ValueError: as for `Strategy`; an unknown option; no neurons named, or one name for two
            widths; more workers than neurons; a sharded exchange without a stratified partition, or
            with a width that the devices do not divide; a crossed partition with a width that n³
            does not divide, with another exchange than a direct one, or with absent workers, an
            outer optimiser, a moving average, replicas or reconstruction.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        partition: str = "uniform",
        exchange: str = "auto",
        exchange_dtype: travel.Wire = None,
        state_dtype: travel.Wire = None,
        optimizer_state: str = "carry",
        shares: Sequence[float] | None = None,
        replicas: int = 1,
        participation: float = 1.0,
        outer: optax.GradientTransformation | None = None,
        ema_decay: float | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        for name, value, allowed in (
            ("partition", partition, PARTITIONS),
            ("exchange", exchange, EXCHANGES),
            ("optimizer_state", optimizer_state, OPTIMIZER_STATES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        self._asked = exchange
        self._partition = partition
        self._crossed = partition == "crossed"
        self.outer = outer
        self._wire = exchange_dtype
        self._state_wire = exchange_dtype if state_dtype is None else state_dtype
        self._carry = optimizer_state == "carry"
        self._replicas = replicas
        # Of a crossed partition the scheme gives the widths and the checks, not the neurons.
        scheme = "stratified" if partition == "crossed" else partition
        self._assignment = ist.Assignment(model, workers, scheme, shares, replicas)
        if self._carry:
            params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
            self._opt_axes = ist.optimizer_axes(optimizer, params, self._assignment.axes)
        self._reconstructing = Reconstructing(model, loss)
        super().__init__(
            model,
            optimizer,
            workers=workers,
            participation=participation,
            local_steps=local_steps,
            ema_decay=ema_decay,
            loss=loss,
            mesh=mesh,
        )
        self._fresh = FreshState(optimizer, self._params)

    @property
    def exchange(self) -> str:
        """How pieces travel: "replicated", "sharded" or "direct"."""
        return self._choice[0].name

    @property
    def exchange_reason(self) -> str:
        """Why, in words."""
        return self._choice[1]

    @property
    def _exchange(self) -> Exchange:
        return self._choice[0]

    @functools.cached_property
    def _choice(self) -> tuple[Exchange, str]:
        question = Question(
            asked=self._asked,
            partition=self._partition,
            assignment=self._assignment,
            travelling=self._travelling(),
            workers=self.workers,
            devices=self.mesh.size,
            replicas=self._replicas,
            participants=self.participants,
            reconstructed=self._reconstructing.layers,
            outer=self.outer,
            ema_decay=self.ema_decay,
        )
        return choose(question)

    def _travelling(self) -> list[tuple[Any, Any, travel.Wire]]:
        """The trees that an exchange moves, their axes, and as what they travel."""
        trees = [(self._params, self._assignment.axes, self._wire)]
        if self._carry:
            state = jax.eval_shape(self._optimizer.init, self._params)
            trees.append((state, self._opt_axes, self._state_wire))
        return trees

    def bytes_received(self, rounds: int, steps: int) -> int:
        """What the exchange brings a worker every round, on a device of its own.

        Replicated: the other workers' pieces. Sharded: the n - 1 n-ths of its next subnet that live
        elsewhere, and as much again of what lives with it, trained elsewhere. Direct: the former,
        and the latter only of parameters between two layers of neurons. The optimiser's state
        likewise where it is carried; an outer optimiser's stays where it is.
        """
        return rounds * sum(
            self._exchange.bytes_received(tree, axes, wire, self.participants)
            for tree, axes, wire in self._travelling()
        )

    def flops_per_step(self, examples: Examples, batch_size: int) -> int:
        """As of `Strategy`, with a step's share of what a round takes to reconstruct."""
        once = self._reconstructing.flops(
            self._worker_shapes(),
            (self._params, self._rest),
            examples,
            (self.local_steps, batch_size),
        )
        return super().flops_per_step(examples, batch_size) + once // self.local_steps

    def model(self, state: State) -> nnx.Module:
        """As of `Strategy`; of a crossed partition, with every neuron in its place again."""
        if not self._crossed:
            return super().model(state)
        params = self._crossing.at_owners(state.params, state.order)
        return nnx.merge(self._local.graphdef, params, self._rest)

    @functools.cached_property
    def _crossing(self) -> Crossing:
        return Crossing(self._assignment, self.workers, self.mesh, self._param_specs())

    def _param_specs(self) -> Any:
        return self._exchange.specs(self._params, self._assignment.axes)

    def _state_specs(self) -> State:
        opt_state: Any = self._specs_of(self._optimizer) if self._carry else P()
        if self.outer is not None:
            opt_state = {"workers": opt_state, "outer": self._specs_of(self.outer)}
        order = {layer: P() for layer in self._assignment.widths} if self._crossed else ()
        return State(self._param_specs(), opt_state, P(), P(), order)

    def _specs_of(self, optimizer: optax.GradientTransformation) -> Any:
        """How an optimiser's state lies beside the parameters."""
        if self.exchange == "replicated":
            return P()
        axes = ist.optimizer_axes(optimizer, self._params, self._assignment.axes)
        return self._exchange.specs(jax.eval_shape(optimizer.init, self._params), axes)

    def _check(self, examples: Examples, batch_size: int) -> None:
        self._assignment.check(self._local.loss, batch_shapes(examples, batch_size))

    def _worker_shapes(self) -> tuple[Any, Any]:
        return self._assignment.subnet_shapes(self._params, self._rest)

    def _check_drawn(self, made: Any) -> None:
        super()._check_drawn(made)
        if self._crossed:
            raise ValueError("draw needs a partition that leaves neurons in place, got 'crossed'")

    def _placed(self) -> Any:
        return self._crossing.placed(self._params) if self._crossed else super()._placed()

    def _first_order(self) -> Any:
        return self._crossing.first_order() if self._crossed else ()

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        opt_state: Any = self._optimizer.init(params)
        opt_state = opt_state if self._carry else self._fresh.kept(opt_state)
        if self.outer is not None:
            opt_state = {"workers": opt_state, "outer": self.outer.init(params)}
        return params, opt_state

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        dealt = self._dealt(state, len(order))
        weights = self._weights(state)
        before = state.opt_state if self.outer is None else state.opt_state["workers"]
        axes = self._assignment.axes
        params = taken = self._exchange.take(state.params, axes, dealt, self._wire)
        if self._carry:
            opt_state = self._exchange.take(before, self._opt_axes, dealt, self._state_wire)
        else:
            opt_state = jax.vmap(lambda own: self._fresh.start(own, before))(params)

        keys = self._worker_keys(state, len(order))
        own_rest = ist.cut(rest, self._assignment.rest_axes, dealt.own)
        added = self._reconstructing.added(
            params, own_rest, state.params, rest, examples, order, keys, in_turn=self._on_cpu
        )
        if added is not None:
            params = jax.tree.map(jnp.add, params, added)
        params, opt_state, losses = self._local.steps_of_all(
            params,
            own_rest,
            opt_state,
            examples,
            order,
            self._assignment.mask(dealt.own),
            keys,
            None if weights is None else travel.of_device(weights, len(order)) > 0,
            in_turn=self._on_cpu,
        )
        if added is not None:
            params = jax.tree.map(jnp.subtract, params, added)

        if self._carry:
            opt_state = self._exchange.give(
                before, opt_state, self._opt_axes, dealt, weights, self._state_wire
            )
        elif weights is None:  # counters, which advance alike on all workers
            opt_state = jax.tree.map(lambda leaf: leaf[0], self._fresh.kept(opt_state))
        else:
            kept = self._fresh.kept(opt_state)
            opt_state = jax.tree.map(lambda leaf: ist.average(leaf, weights), kept)
        where = axes, dealt, weights, self._wire
        if self._wire is None or self._crossed:
            params = self._exchange.give(state.params, params, *where)
        else:
            params = give_changes(self._exchange, state.params, params, taken, *where)
        if self.outer is not None:
            params, outer_state = outer_step_of_trained(
                self.outer, state.params, params, state.opt_state["outer"]
            )
            opt_state = {"workers": opt_state, "outer": outer_state}
        after = State(params, opt_state, state.round + 1, state.key, state.order)
        if self._crossed:
            held = {layer: rows.ravel() for layer, rows in dealt.neurons.items()}
            after = dataclasses.replace(after, order=held)
        return after, worker_metrics(losses, weights)

    def _dealt(self, state: State, local: int) -> Dealt:
        """The partition of this round, with what is of this device's `local` workers."""
        key, slots = jax.random.fold_in(state.key, state.round), {}
        if self._crossed:
            slots = crossed.draw(key, state.order, self.workers)
            parts = {layer: state.order[layer][rows] for layer, rows in slots.items()}
        else:
            parts = self._exchange.arranged(self._assignment.parts(key, state.round))
        return Dealt(parts, self._assignment.own(parts, local), slots)
