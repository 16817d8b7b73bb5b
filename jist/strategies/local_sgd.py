"""Local SGD.

Stich: Local SGD Converges Fast and Communicates Little. ICLR 2019. Every worker holds the whole
network, takes J steps on its own, then the workers average their parameters. The baseline against
which Yuan et al. (VLDB 2022, §3) measure independent subnet training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from jist import costs
from jist.ist import average
from jist.strategies.fresh import FreshState
from jist.strategies.local import (
    Examples,
    Loss,
    for_each_worker,
    softmax_cross_entropy,
    worker_metrics,
)
from jist.strategies.strategy import OPTIMIZER_STATES, State, Strategy


class LocalSGD(Strategy):
    """Workers take `local_steps` steps apart, then average their parameters.

    Args and errors as for `Strategy`, and:
        optimizer_state: "reset" starts the optimiser anew every round; "carry" averages its state
            over the workers like the parameters.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        optimizer_state: str = "carry",
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        if optimizer_state not in OPTIMIZER_STATES:
            raise ValueError(
                f"optimizer_state must be one of {OPTIMIZER_STATES}, got {optimizer_state!r}"
            )
        self._carry = optimizer_state == "carry"
        super().__init__(
            model, optimizer, workers=workers, local_steps=local_steps, loss=loss, mesh=mesh
        )
        self._fresh = FreshState(optimizer, self._params)

    def bytes_received(self, rounds: int, steps: int) -> int:
        """The all-reduce of every round, as a ring: 2 (n - 1) / n of what is averaged."""
        averaged: Any = [self._params]
        if self._carry:
            averaged.append(jax.eval_shape(self._optimizer.init, self._params))
        return rounds * costs.all_reduce_bytes(averaged, self.workers)

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        opt_state = self._optimizer.init(params)
        return params, opt_state if self._carry else self._fresh.kept(opt_state)

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        start = state.opt_state if self._carry else self._fresh.start(state.params, state.opt_state)
        keys = self._worker_keys(state, len(order))

        def one(order: Array, key: PRNGKeyArray | None) -> tuple[Any, Array]:
            params, opt_state, losses = self._local.steps(
                state.params, rest, start, examples, order, key=key
            )
            return (params, opt_state if self._carry else self._fresh.kept(opt_state)), losses

        if self._on_cpu:
            # Added up as they are trained: no memory is needed for each of them.
            def add(mean: Any, own: tuple[Array, PRNGKeyArray | None]) -> tuple[Any, Array]:
                trained, losses = one(*own)
                return jax.tree.map(
                    lambda mean, x: _add(mean, x, len(order)), mean, trained
                ), losses

            nothing = jax.tree.map(jnp.zeros_like, (state.params, state.opt_state))
            mean, losses = jax.lax.scan(add, nothing, (order, keys))
            trained = jax.tree.map(lambda leaf: leaf[None], mean)
        else:
            trained, losses = for_each_worker(one, order, keys, in_turn=False)
        params, opt_state = jax.tree.map(average, trained)
        return State(params, opt_state, state.round + 1, state.key), worker_metrics(losses)


def _add(mean: Array, one: Array, local: int) -> Array:
    """A worker's share of the mean over a device's workers; counters advance alike on all."""
    return mean + one / local if jnp.issubdtype(one.dtype, jnp.floating) else one
