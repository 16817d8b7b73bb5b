r"""Outer optimisers: a round's change of the parameters taken as a gradient.

Reddi et al.: Adaptive Federated Optimization. ICLR 2021; Douillard et al.: DiLoCo. arXiv
2311.08105. With the parameters $\theta_t$ before a round and $\theta'$ after it, the gradient is
$\Delta_t = \theta_t - \theta'$, along which an optimiser steps from $\theta_t$. Nesterov's:

$$m_t = \beta m_{t-1} + \Delta_t, \qquad \theta_{t+1} = \theta_t - \eta (\Delta_t + \beta m_t)$$

With $\eta = 1$ and $\beta = 0$ that is $\theta'$. The state belongs to the parameters, wherever
those lie: nothing of it travels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def nesterov(learning_rate: float = 0.7, momentum: float = 0.9) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum; the defaults are DiLoCo's (§3).

    Raises:
        ValueError: the learning rate is not positive, or the momentum not in [0, 1).
    """
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"outer_lr must be positive, got {learning_rate}")
    if not 0 <= momentum < 1:
        raise ValueError(f"outer_momentum must lie in [0, 1), got {momentum}")
    return optax.sgd(learning_rate, momentum=momentum, nesterov=True)


def outer_step(
    optimizer: optax.GradientTransformation, before: Any, after: Any, state: Any
) -> tuple[Any, Any]:
    """A step along what a round has changed.

    Args:
        optimizer: the outer optimiser.
        before: the parameters before the round.
        after: the same after it.
        state: the outer optimiser's.

    Returns:
        The parameters to go on with, and the outer optimiser's state.
    """
    deltas = jax.tree.map(jnp.subtract, before, after)
    updates, state = optimizer.update(deltas, state, before)
    return optax.apply_updates(before, updates), state


def outer_step_of_trained(
    optimizer: optax.GradientTransformation, before: Any, after: Any, state: Any
) -> tuple[Any, Any]:
    """`outer_step` of the parameters that the round has changed; the others stand still.

    A parameter between neurons of different workers, or of a worker that was absent, was not
    trained: it keeps its value, and its momentum waits for the next round that trains it.
    """
    params, new_state = outer_step(optimizer, before, after, state)
    trained = jax.tree.map(jnp.not_equal, before, after)
    of_state = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, trained: trained,
        state,
        trained,
        transform_non_params=lambda _: jnp.array(True),
    )
    new_state = jax.tree.map(jnp.where, of_state, new_state, state)
    return jax.tree.map(jnp.where, trained, params, before), new_state
