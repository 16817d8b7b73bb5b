"""What all strategies share: their interface, and the form of a round.

A strategy says how n workers train one model together. Workers are a logical axis: n workers live
on D devices, n a multiple of D, and the result does not depend on D (up to float rounding). A round
is one compiled program that runs on every device of the mesh (`jax.shard_map`).
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from jist import costs
from jist.placement import place, workers_mesh
from jist.ragged import batch_shapes
from jist.strategies import ema
from jist.strategies.fused import FusedOutput
from jist.strategies.lazy import LazyRows
from jist.strategies.local import Examples, LocalTraining, Loss, softmax_cross_entropy
from jist.strategies.participation import participants, participation_weights
from jist.strategies.state import State
from jist.strategies.streams import has_streams, worker_keys

OPTIMIZER_STATES = ("reset", "carry")  # what becomes of an optimiser's state between rounds
_DRAWING = 2**32 - 1  # is folded into the key in the place of a round's number
# On a CPU, what a worker trains at most if each is to have a core of its own.
MOST_BYTES_PER_CORE = 5_000_000


class Strategy(abc.ABC):
    """How n workers train one model.

    Args:
        model: the full network, with its initial values. Its other variables (statistics, fixed
            positions) stay as they are in training: running averages are measured afterwards
            (`jist.calibrate`). Random streams (Dropout) give every worker new numbers in every
            step.
        optimizer: each worker's optimiser, possibly in `LazyRows` or `FusedOutput`.
        workers: number of workers n.
        local_steps: number J of optimiser steps that a worker takes in a full round.
        participation: share of the workers that takes part in a round, in (0, 1]; of strategies
            that have an option for it.
        ema_decay: decay per round, in (0, 1), of a moving average of the parameters, which is then
            the network that `model` gives (`jist.strategies.ema`); none by default.
        loss: maps a model and a batch of examples to a scalar; softmax cross-entropy by default.
        mesh: devices, along one axis named "workers"; by default as many as divide n, but one CPU
            where a worker trains more than `MOST_BYTES_PER_CORE`: no cache holds a wide network for
            each core, and they are faster one after the other, by all cores.

    Attributes:
        workers, local_steps, optimizer, ema_decay, loss, mesh: as given.
        participants: number of workers that take part in a round, k.
        outer: the optimiser of what a round has changed, of strategies that have one, or None.
        exchange: how the full parameters lie between rounds: "replicated", every device holds all
            of them, or "sharded", each holds its share.

    Raises:
        ValueError: `workers` or `local_steps` is not positive, `participation` not a share,
            `ema_decay` not in (0, 1), the mesh has another axis, or `workers` is not a multiple of
            its devices.
    """

    outer: optax.GradientTransformation | None = None
    sends_gradients = False  # so that workers take no steps by themselves

    @property
    def exchange(self) -> str:
        """How the full parameters lie between rounds, as above."""
        return "replicated"

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        participation: float = 1.0,
        ema_decay: float | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        ema.check_ema_decay(ema_decay)
        if self.sends_gradients and isinstance(optimizer, LazyRows | FusedOutput):
            raise ValueError(
                f"optimizer: {type(self).__name__} sends whole gradients, which "
                f"{type(optimizer).__name__} never has"
            )
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, got {local_steps}")
        self.workers = workers
        self.participants = participants(workers, participation)
        self.local_steps = local_steps
        self.ema_decay = ema_decay
        self.loss = loss
        self.optimizer = self._optimizer = optimizer
        model = nnx.clone(model)  # the caller's own keeps its mode
        model.train()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        # Copied to the host: no device need hold more of them than its share of the state.
        self._params = jax.tree.map(
            lambda x: np.array(x) if isinstance(x, jax.Array) else x, nnx.to_pure_dict(params)
        )
        self._rest = nnx.to_pure_dict(rest)
        self._has_streams = has_streams(self._rest)
        self._local = LocalTraining(graphdef, optimizer, loss)
        self.mesh = workers_mesh(workers, self._devices()) if mesh is None else mesh
        if self.mesh.axis_names != ("workers",):
            raise ValueError(f'mesh must have one axis, "workers", got {self.mesh.axis_names}')
        if workers % self.mesh.size:
            raise ValueError(
                f"workers must be a multiple of the mesh's devices, "
                f"got {workers} workers on {self.mesh.size} devices"
            )
        self._rest = jax.device_put(self._rest, self.replicated)
        state_specs = self._state_specs()
        self._on_devices = jax.shard_map(
            self._device_round,
            mesh=self.mesh,
            in_specs=(state_specs, P(), P(), P("workers")),
            out_specs=(state_specs, P()),
            # What leaves a round was exchanged and is equal wherever its spec says so, which the
            # type system of shard_map cannot see through a scatter.
            check_vma=False,
        )
        self._round = jax.jit(self._averaged_round, donate_argnums=0)

    def init(self, seed: int, draw: Callable[[Key[Array, ""]], Any] | None = None) -> State:
        """The state before the first round, and a key from `seed`.

        Args:
            seed: decides everything that is drawn in training.
            draw: makes the initial parameters, a nested dict, of a key; by default they are the
                model's own values. It becomes a part of one compiled program, in which every device
                computes its share: of a model that was given as shapes (`jist.models.as_shapes`)
                nothing ever holds a second copy.

        Raises:
            ValueError: the model was given as shapes, and there is no `draw`; or what that makes
                has other shapes, or is for a crossed partition.
        """
        key = jax.random.key(seed)
        given = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(self._params))
        if draw is None:
            if not given:
                raise ValueError("init needs draw for a model that was given as shapes, got None")
            return self._first_state(self._placed(), key)
        self._check_drawn(jax.eval_shape(draw, key))
        drawn = jax.jit(
            lambda key: self._begun(draw(jax.random.fold_in(key, _DRAWING)), key),
            out_shardings=self._state_shardings(),
        )
        return drawn(key)

    def _check_drawn(self, made: Any) -> None:
        """Raises where the parameters that `draw` makes are not the model's."""
        shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (made, self._params))
        if shapes[0] != shapes[1]:
            raise ValueError(f"draw must make parameters like {shapes[1]}, got {shapes[0]}")

    def _placed(self) -> Any:
        """The initial parameters on the devices, as they lie between rounds."""
        return jax.tree.map(
            lambda array, spec: place(array, NamedSharding(self.mesh, spec)),
            self._params,
            self._param_specs(),
        )

    @functools.cached_property
    def _first_state(self) -> Callable[[Any, Key[Array, ""]], State]:
        """Makes a state of parameters and a key; compiled once, however often one is asked for."""

        def start(params: Any, key: Array) -> State:
            # Copied, because a round donates its state and the host's arrays must outlive it.
            return self._begun(jax.tree.map(jnp.copy, params), key)

        return jax.jit(start, out_shardings=self._state_shardings())

    def _begun(self, params: Any, key: Array) -> State:
        """The state of parameters before the first round."""
        begun = self._start(params, key)
        state = State(*begun, jnp.zeros((), jnp.int32), key, self._first_order())
        if self.ema_decay is None:
            return state
        return dataclasses.replace(state, average=ema.started(state.params))

    def _state_shardings(self) -> State:
        specs = self._state_specs()
        if self.ema_decay is not None:
            specs = dataclasses.replace(specs, average=specs.params)
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs)

    def round(
        self,
        state: State,
        examples: Examples,
        order: Int[Array | np.ndarray, "workers steps batch"],
    ) -> tuple[State, dict[str, Array]]:
        """Trains for one round, in one compiled call.

        Args:
            state: the state before; donated, so not to be used again.
            examples: tree of arrays [N, ...].
            order: which examples each worker takes in each of its steps, i32
                [workers, steps, batch]; the last round of an epoch may have fewer steps than
                `local_steps`.

        Returns:
            The state after, and metrics: "loss" [workers], each worker's mean over its steps; of a
            worker that was absent, the mean of those that took part.

        Raises:
            ValueError: `order` is not of this shape.
        """
        if order.ndim != 3 or len(order) != self.workers:
            raise ValueError(
                f"order must have the shape [workers={self.workers}, steps, batch], "
                f"got {list(order.shape)}"
            )
        self._check(examples, order.shape[2])
        order = jax.device_put(order, NamedSharding(self.mesh, P("workers")))
        return self._round(state, self._rest, examples, order)

    def model(self, state: State) -> nnx.Module:
        """The full network with the state's parameters, to calibrate, evaluate or export.

        Of use until the next round, which takes the state's arrays.
        """
        return nnx.merge(self._local.graphdef, self._deployed(state), self._rest)

    @property
    def parameters_per_worker(self) -> int:
        """Parameters that a worker trains in a round, those of the widest where they differ."""
        return costs.count(self._worker_shapes()[0])

    def flops_per_step(self, examples: Examples, batch_size: int) -> int:
        """Floating-point operations of a worker's matrix products in one step.

        Args:
            examples: tree of arrays [N, ...] or of their shapes.
            batch_size: examples B in a worker's batch.
        """
        self._check(examples, batch_size)
        params, rest = self._worker_shapes()
        rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        return costs.matmul_flops(self._local.gradient, params, rest, examples, rows)

    def worker_step(self, examples: Examples, batch_size: int) -> jax.stages.Compiled:
        """The program of one step of one worker, for a machine that holds nothing else.

        It maps parameters, other variables, the optimiser's state, a batch and the rows of each
        step [1, B] to parameters, the optimiser's state and losses; the first and the third are
        donated. Its `memory_analysis()` says what a worker needs, its `args_info` the shapes.

        Args:
            examples: tree of arrays [N, ...] or of their shapes.
            batch_size: examples B in a worker's batch.
        """
        self._check(examples, batch_size)
        params, rest = self._worker_shapes()
        batch = batch_shapes(examples, batch_size)
        rows = jax.ShapeDtypeStruct((1, batch_size), jnp.int32)
        opt_state = jax.eval_shape(self._optimizer.init, params)
        step = jax.jit(self._local.steps, donate_argnums=(0, 2))
        return step.lower(params, rest, opt_state, batch, rows).compile()

    @abc.abstractmethod
    def bytes_received(self, rounds: int, steps: int) -> int:
        """Bytes that a worker on a device of its own has received after some training.

        Where a share of the workers takes part, the mean over all of what has to travel, so that
        every worker is up to date after every round. (The devices of one program are never away,
        and pass the unchanged pieces of absent workers on as well.)

        Args:
            rounds: rounds done.
            steps: optimiser steps that each worker has taken in them.
        """

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that every device of the mesh holds whole."""
        return NamedSharding(self.mesh, P())

    def _deployed(self, state: State) -> Any:
        """The parameters to use the network with, as they lie between rounds: their average."""
        if self.ema_decay is None:
            return state.params
        return ema.typed_like(state.average, state.params)

    def _averaged_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        """A round on all devices, and the average after it."""
        average, state = state.average, dataclasses.replace(state, average=())
        state, metrics = self._on_devices(state, rest, examples, order)
        if self.ema_decay is not None:
            average = ema.moved(average, state.params, self.ema_decay, state.round)
        return dataclasses.replace(state, average=average), metrics

    def _check(self, examples: Examples, batch_size: int) -> None:  # noqa: B027, no cut, no check
        """Raises where the model cannot be cut for such a batch."""

    def _devices(self) -> int | None:
        """How many devices share the workers by default; None for as many as divide n."""
        wide = costs.size_bytes(self._worker_shapes()[0]) > MOST_BYTES_PER_CORE
        alone = jax.default_backend() == "cpu" and jax.process_count() == 1
        return 1 if wide and alone else None

    @property
    def _on_cpu(self) -> bool:
        return self.mesh.devices.flat[0].platform == "cpu"

    def _param_specs(self) -> Any:
        """How the full parameters lie on the mesh; by default every device holds all of them."""
        return jax.tree.map(lambda _: P(), self._params)

    def _state_specs(self) -> State:
        """How the state lies on the mesh; by default every device holds all of it."""
        return State(P(), P(), P(), P())

    def _worker_shapes(self) -> tuple[Any, Any]:
        """Shapes of a worker's parameters and of its other variables."""
        return jax.eval_shape(lambda: (self._params, self._rest))

    def _worker_keys(self, state: State, local: int) -> Key[Array, " local"] | None:
        """Keys of this device's workers for a round, None if the model has no random streams."""
        return worker_keys(state.key, state.round, local) if self._has_streams else None

    def _weights(self, state: State) -> Float[Array, " workers"] | None:
        """What the workers weigh in a round's averages; None if all take part."""
        return participation_weights(state.key, state.round, self.workers, self.participants)

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        """The state's `params` and `opt_state` before the first round."""
        return params, self._optimizer.init(params)

    def _first_order(self) -> Any:
        """The state's `order` before the first round."""
        return ()

    @abc.abstractmethod
    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        """A round on one device.

        `rest` holds the model's variables that are not trained, `order` the device's own workers.
        """
