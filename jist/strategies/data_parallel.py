"""Data parallel training.

Every worker holds the whole network and takes a batch of its own; gradients are averaged over the
workers at every step (Yuan et al., VLDB 2022, §3.1, after Zinkevich et al., NeurIPS 2010; the
averaging is an all-reduce). The bandwidth-hungry baseline of independent subnet training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jist import costs
from jist.strategies.local import Examples, worker_metrics
from jist.strategies.state import State
from jist.strategies.strategy import Strategy
from jist.strategies.streams import step_keys


class DataParallel(Strategy):
    """Workers average their gradients at every step; a round is `local_steps` such steps.

    Args and errors as for `Strategy`. Statistics of a batch, where the model takes any, are those
    of each worker's own batch.
    """

    sends_gradients = True

    def bytes_received(self, rounds: int, steps: int) -> int:
        """The gradient's all-reduce at every step, as a ring: 2 (n - 1) / n of its size."""
        return steps * costs.all_reduce_bytes(self._params, self.workers)

    def _device_round(
        self, state: State, rest: Any, examples: Examples, order: Array
    ) -> tuple[State, dict[str, Array]]:
        def mean_loss(
            params: Any, rows: Array, keys: Key[Array, " local"] | None
        ) -> tuple[Array, Float[Array, " local"]]:
            if len(rows) == 1:  # without an axis of its own, as in `for_each_worker`
                key = None if keys is None else keys[0]
                losses = self._local.batch_loss(params, rest, examples, rows[0], key)[None]
            else:
                losses = jax.vmap(self._local.batch_loss, in_axes=(None, None, None, 0, 0))(
                    params, rest, examples, rows, keys
                )
            return jnp.mean(losses), losses

        def step(
            carry: tuple[Any, Any], own_rows: tuple[Array, Key[Array, " local"] | None]
        ) -> tuple[tuple[Any, Any], Float[Array, " local"]]:
            params, opt_state = carry
            # The gradient of the mean, not the mean of gradients: one product over the examples of
            # all local workers, and no gradient is held for each of them.
            (_, losses), own = jax.value_and_grad(mean_loss, has_aux=True)(params, *own_rows)
            gradient = jax.lax.pmean(own, "workers")
            updates, opt_state = self._optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), losses

        carry = (state.params, state.opt_state)
        keys, steps = self._worker_keys(state, len(order)), order.shape[1]
        if keys is not None:
            keys = jnp.swapaxes(jax.vmap(lambda key: step_keys(key, steps))(keys), 0, 1)
        in_steps = jnp.swapaxes(order, 0, 1), keys
        (params, opt_state), losses = jax.lax.scan(step, carry, in_steps)
        return State(params, opt_state, state.round + 1, state.key), worker_metrics(losses.T)
