"""Centralised training: one worker, the whole network. The yardstick of every other strategy."""

from typing import Any

import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from jist.strategies.local import Examples, Loss, softmax_cross_entropy, worker_metrics
from jist.strategies.state import State
from jist.strategies.strategy import Strategy


class Centralized(Strategy):
    """One worker trains the whole network; a round is `local_steps` steps of its optimiser.

    Args and errors as for `Strategy`; `workers` must be 1.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: optax.GradientTransformation,
        *,
        workers: int = 1,
        local_steps: int,
        ema_decay: float | None = None,
        loss: Loss = softmax_cross_entropy,
        mesh: Mesh | None = None,
    ):
        if workers != 1:
            raise ValueError(f"workers must be 1 in centralised training, got {workers}")
        super().__init__(
            model,
            optimizer,
            workers=1,
            local_steps=local_steps,
            ema_decay=ema_decay,
            loss=loss,
            mesh=mesh,
        )

    def bytes_received(self, rounds: int, steps: int) -> int:
        """None: there is one worker."""
        return 0

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        keys = self._worker_keys(state, 1)
        params, opt_state, losses = self._local.steps(
            *(state.params, rest, state.opt_state, examples, order[0]),
            key=None if keys is None else keys[0],
        )
        state = State(params, opt_state, state.round + 1, state.key)
        return state, worker_metrics(losses[None])
