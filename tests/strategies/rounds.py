"""Rounds of any strategy, one after the other, and what is in their compiled program."""

import math
import re

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


def compiled(strategy, examples, batch=12):
    """The program of a round."""
    order = np.zeros((strategy.workers, strategy.local_steps, batch), np.int32)
    order = jax.device_put(order, jax.NamedSharding(strategy.mesh, jax.P("workers")))
    examples = jax.device_put(examples, strategy.replicated)
    return strategy._round.lower(strategy.init(0), strategy._rest, examples, order).compile()


def collectives(program):
    """{name: bytes of all results} of the collectives in a compiled program."""
    found = {}
    pattern = r"= (\([^=]*?\)|\S+) (all-to-all|all-gather|all-reduce|collective-permute)\("
    for shapes, name in re.findall(pattern, program.as_text()):
        for kind, size in re.findall(r"(f32|s32|u32|u16|u8)\[([\d,]*)\]", shapes):
            width = int(kind[1:]) // 8
            count = math.prod(int(n) for n in size.split(",")) if size else 1
            found[name] = found.get(name, 0) + width * count
    return found
