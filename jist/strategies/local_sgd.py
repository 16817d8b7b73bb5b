"""Local SGD.

Stich: Local SGD Converges Fast and Communicates Little. ICLR 2019. Every worker holds the whole
network, takes J steps on its own, then the workers average their parameters. The baseline against
which Yuan et al. (VLDB 2022, §3) measure independent subnet training.
"""

from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from jist import costs
from jist.strategies.averaging import train_and_average
from jist.strategies.fresh import FreshState
from jist.strategies.local import Examples, Loss, softmax_cross_entropy, worker_metrics
from jist.strategies.state import State
from jist.strategies.strategy import OPTIMIZER_STATES, Strategy


class LocalSGD(Strategy):
    """Workers take `local_steps` steps apart, then average their parameters.

    Args and errors as for `Strategy`, and:
        optimizer_state: "reset" starts the optimiser anew every round; "carry" averages its state
            over the workers like the parameters.
        participation: share of the workers that takes part in a round, in (0, 1]; the average is
            over these.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int,
        local_steps: int,
        optimizer_state: str = "carry",
        participation: float = 1.0,
        ema_decay: float | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        if optimizer_state not in OPTIMIZER_STATES:
            raise ValueError(
                f"optimizer_state must be one of {OPTIMIZER_STATES}, got {optimizer_state!r}"
            )
        self._carry = optimizer_state == "carry"
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
        self._fresh = FreshState(optimizer, self._params)

    def bytes_received(self, rounds: int, steps: int) -> int:
        """The all-reduce of every round, as a ring: 2 (n - 1) / n of what is averaged."""
        averaged: Any = [self._params]
        if self._carry:
            averaged.append(jax.eval_shape(self._optimizer.init, self._params))
        return rounds * costs.all_reduce_bytes(averaged, self.workers, self.participants)

    def _start(self, params: Any, key: Array) -> tuple[Any, Any]:
        opt_state = self._optimizer.init(params)
        return params, opt_state if self._carry else self._fresh.kept(opt_state)

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        start = state.opt_state if self._carry else self._fresh.start(state.params, state.opt_state)
        weights = self._weights(state)

        def train(
            kept: tuple[()], order: Array, key: PRNGKeyArray | None
        ) -> tuple[Any, tuple[()], Array]:
            params, opt_state, losses = self._local.steps(
                state.params, rest, start, examples, order, key=key
            )
            trained = params, opt_state if self._carry else self._fresh.kept(opt_state)
            return trained, kept, losses

        (params, opt_state), _, losses = train_and_average(
            train,
            ((), order, self._worker_keys(state, len(order))),
            like=(state.params, state.opt_state),
            weights=weights,
            in_turn=self._on_cpu,
        )
        state = State(params, opt_state, state.round + 1, state.key)
        return state, worker_metrics(losses, weights)
