"""Ensemble of subnets.

Every worker trains one subnet from beginning to end; neurons are assigned once and never again, and
the subnets are put together only when the training is over (Yuan et al., VLDB 2022, §3.1 and
Table 3). What independent subnet training gains by re-sampling is measured against it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jist import ist
from jist.models import Reconstruct, Scale
from jist.ragged import batch_shapes
from jist.strategies.local import Examples, Loss, softmax_cross_entropy, worker_metrics
from jist.strategies.state import State
from jist.strategies.strategy import Strategy


class Ensemble(Strategy):
    """Workers train one subnet each, apart from each other.

    The assembled network has no connection between neurons of different workers, so its output is
    that of all subnets together: hidden neurons see what they saw in training, and the output layer
    sums over all of them. What is on every worker, such as the output's bias, is averaged.

    Args and errors as for `Strategy`; and as for `IST`, the model names its neurons.

    Raises:
        ValueError: the model scales activations by how many of its neurons are there, or has those
            reconstructed that are not: all are in the assembled network, of which each neuron sees
            those of its own subnet.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        partition: str = "uniform",
        ema_decay: float | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        corrections = (Scale, Reconstruct)
        if any(isinstance(module, corrections) for _, module in nnx.iter_modules(model)):
            raise ValueError(
                "model must not correct its subnets for what they lack (norm='scale', "
                "correction='scale' or 'reconstruct', channels of heads): they stay subnets when "
                "an ensemble is put together"
            )
        if partition == "rolling":
            raise ValueError("partition='rolling' moves every round, those of an ensemble never do")
        self._assignment = ist.Assignment(model, workers, partition)
        super().__init__(
            model,
            optimizer,
            workers=workers,
            local_steps=local_steps,
            ema_decay=ema_decay,
            loss=loss,
            mesh=mesh,
        )
        self._assemble = jax.jit(self._assembled, out_shardings=self.replicated)

    def bytes_received(self, rounds: int, steps: int) -> int:
        """None before the end of the training."""
        return 0

    def model(self, state: State) -> nnx.Module:
        """The subnets put together, unconnected."""
        params = self._assemble(self._deployed(state), state.key)
        return nnx.merge(self._local.graphdef, params, self._rest)

    def _assembled(self, subnets: Any, key: Array) -> Any:
        nothing = jax.tree.map(jnp.zeros_like, self._params)
        return ist.paste(nothing, subnets, self._assignment.axes, self._parts(key))

    def _parts(self, key: Array) -> dict[str, Array]:
        """The partition of an IST run's first round, in every round."""
        return self._assignment.parts(jax.random.fold_in(key, 0))

    def _state_specs(self) -> State:
        return State(P("workers"), P("workers"), P(), P())

    def _check(self, examples: Examples, batch_size: int) -> None:
        self._assignment.check(self._local.loss, batch_shapes(examples, batch_size))

    def _worker_shapes(self) -> tuple[Any, Any]:
        return self._assignment.subnet_shapes(self._params, self._rest)

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        subnets = ist.cut(params, self._assignment.axes, self._parts(key))
        return subnets, jax.vmap(self._optimizer.init)(subnets)

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        own = self._assignment.own(self._parts(state.key), len(order))
        params, opt_state, losses = self._local.steps_of_all(
            state.params,
            ist.cut(rest, self._assignment.rest_axes, own),
            state.opt_state,
            examples,
            order,
            self._assignment.mask(own),
            self._worker_keys(state, len(order)),
            in_turn=self._on_cpu,
        )
        return State(params, opt_state, state.round + 1, state.key), worker_metrics(losses)
