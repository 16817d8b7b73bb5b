"""DiLoCo: local steps, and an outer optimiser of what they have changed.

Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen: DiLoCo: Distributed
Low-Communication Training of Language Models. arXiv 2311.08105, Algorithm 1. Every worker holds the
whole network and takes J steps with an optimiser of its own, AdamW in the paper, whose state stays
with the worker; the mean change of the parameters is the gradient of an outer optimiser, SGD with
Nesterov's momentum. With the outer optimiser `optax.sgd(1.0)` it is local SGD.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PRNGKeyArray

from jist import costs
from jist.strategies.averaging import train_and_average
from jist.strategies.local import Examples, Loss, softmax_cross_entropy, worker_metrics
from jist.strategies.outer import nesterov, outer_step
from jist.strategies.state import State
from jist.strategies.strategy import Strategy


class DiLoCo(Strategy):
    """Workers take `local_steps` steps apart; an outer optimiser follows their mean change.

    Args and errors as for `Strategy`, and:
        outer: the outer optimiser; `jist.strategies.nesterov()` by default.
        participation: share of the workers that takes part in a round, in (0, 1]; the mean change
            is that of these. An absent worker's own optimiser waits.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        outer: optax.GradientTransformation | None = None,
        participation: float = 1.0,
        ema_decay: float | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        super().__init__(
            model,
            optimizer,
            workers=workers,
            local_steps=local_steps,
            participation=participation,
            ema_decay=ema_decay,
            loss=loss,
            mesh=mesh,
        )
        self.outer = self._outer = nesterov() if outer is None else outer

    def bytes_received(self, rounds: int, steps: int) -> int:
        """The all-reduce of the changes in every round, as a ring: 2 (n - 1) / n of the network."""
        return rounds * costs.all_reduce_bytes(self._params, self.workers, self.participants)

    def _state_specs(self) -> State:
        return State(P(), {"workers": P("workers"), "outer": P()}, P(), P())

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        own = self._optimizer.init(params)
        every = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.workers, *x.shape)), own)
        return params, {"workers": every, "outer": self._outer.init(params)}

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        weights = self._weights(state)

        def train(opt_state: Any, order: Array, key: PRNGKeyArray | None) -> tuple[Any, Any, Array]:
            return self._local.steps(state.params, rest, opt_state, examples, order, key=key)

        own = state.opt_state["workers"], order, self._worker_keys(state, len(order))
        mean, own_states, losses = train_and_average(
            train, own, like=state.params, weights=weights, in_turn=self._on_cpu
        )
        params, outer_state = outer_step(self._outer, state.params, mean, state.opt_state["outer"])
        opt_state = {"workers": own_states, "outer": outer_state}
        state = State(params, opt_state, state.round + 1, state.key)
        return state, worker_metrics(losses, weights)
