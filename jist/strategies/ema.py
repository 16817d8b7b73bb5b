r"""Exponential moving averages of the parameters.

Polyak and Juditsky: Acceleration of Stochastic Approximation by Averaging. SIAM J. Control Optim.
1992. At a constant learning rate the parameters keep moving around a good place; their average over
the last rounds lies nearer to it. With the parameters $\theta_t$ after round $t = 1, 2, \dots$

$$\bar\theta_t = \bar\theta_{t-1} + \max(1 - \beta, 1 / t) (\theta_t - \bar\theta_{t-1})$$

so it is their mean at first, and never holds the initial values. Training does not see the average,
which lies beside the parameters: nothing of it travels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


def check_ema_decay(decay: float | None) -> None:
    """Raises where there cannot be such an average.

    Raises:
        ValueError: the decay is not in (0, 1).
    """
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"ema_decay must lie in (0, 1), got {decay}")


def started(params: Any) -> Any:
    """The average before the first round, of as narrow types as float32: small steps add up."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), params)


def moved(average: Any, params: Any, decay: float, rounds: Int[Array, ""]) -> Any:
    """The average after a round.

    Args:
        average: before it.
        params: the parameters after it.
        decay: β above.
        rounds: number of rounds done, t above.
    """
    return optax.incremental_update(params, average, jnp.maximum(1 - decay, 1 / rounds))


def typed_like(average: Any, params: Any) -> Any:
    """The average with the parameters' types, to be used in their place."""
    return jax.tree.map(lambda of, x: of.astype(x.dtype), average, params)
