"""Rounds of any strategy, one after the other."""

import jax
import numpy as np

SEED = 7


def train(strategy, examples, order):
    """The state after the rounds of `order` [rounds, workers, steps, batch], and their losses."""
    state = strategy.init(SEED)
    examples = jax.device_put(examples, strategy.replicated)
    losses = []
    for rows in order:
        state, metrics = strategy.round(state, examples, rows)
        losses.append(np.asarray(metrics["loss"]))
    return state, np.stack(losses)
