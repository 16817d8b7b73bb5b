r"""Parameters in bfloat16 that are rounded at random, so that small steps are not lost.

A bfloat16 has 8 bits of precision: a step below 1/512 of a parameter's size, rounded to the
nearest, is no step. Rounded up or down at random it is one in the mean: for neighbours
$a \le x < b$, $P(b) = (x - a) / (b - a)$ (Gupta, Agrawal, Gopalakrishnan, Narayanan: Deep Learning
with Limited Numerical Precision, ICML 2015; ELMO trains the output layers of extreme classification
so).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt32

_LOST = 16  # of the 32 bits of a float32


class RoundingState(NamedTuple):
    """The state of the optimiser within, of parameters in float32; and the steps done, i32 []."""

    inner: Any
    steps: Array


def stochastic_round(
    x: Float[Array, "*shape"], bits: UInt32[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Rounds to a neighbouring bfloat16, up or down at random.

    Args:
        x: float32; what is not finite is rounded as usual.
        bits: uniform random bits, of which the lower 16 are used.

    Returns:
        bfloat16, of the mean x.
    """
    pattern = jax.lax.bitcast_convert_type(x, jnp.uint32)
    # The lower bits are the way to the upper neighbour (of larger magnitude); what a uniform number
    # carries over happens as often.
    carried = (pattern + (bits & 0xFFFF)) >> _LOST << _LOST
    rounded = jax.lax.bitcast_convert_type(carried, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def stochastically_rounded(
    optimizer: optax.GradientTransformation, seed: int = 0
) -> optax.GradientTransformation:
    """An optimiser whose parameters in bfloat16 are rounded at random.

    It computes in float32, its moments too. Parameters of other types are treated as before.

    Args:
        optimizer: any Optax transformation.
        seed: decides how is rounded.

    >>> import optax
    >>> from jist.strategies import stochastically_rounded
    >>> optimizer = stochastically_rounded(optax.sgd(0.1))
    """

    def init(params: Any) -> RoundingState:
        return RoundingState(optimizer.init(_widened(params)), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        wide = _widened(params)
        updates, inner = optimizer.update(_widened(updates), state.inner, wide)
        key = jax.random.fold_in(jax.random.key(seed), state.steps)
        leaves, structure = jax.tree.flatten(params)
        steps = [
            _rounded_step(jax.random.fold_in(key, number), param, step)
            for number, (param, step) in enumerate(
                zip(leaves, jax.tree.leaves(updates), strict=True)
            )
        ]
        return jax.tree.unflatten(structure, steps), RoundingState(inner, state.steps + 1)

    return optax.GradientTransformation(init, update)


def _rounded_step(key: Array, param: Array, step: Array) -> Array:
    """The step in float32 after which a parameter is a bfloat16, without any further rounding."""
    if param.dtype != jnp.bfloat16:
        return step
    if param.ndim < 2:
        return _rounded_row(key, param, step)
    # Row by row: random bits of a whole kernel are several times as large as the kernel.
    keys = jax.random.split(key, len(param))
    return jax.lax.map(lambda row: _rounded_row(*row), (keys, param, step))


def _rounded_row(key: Array, param: Array, step: Array) -> Array:
    wide = param.astype(jnp.float32)
    bits = jax.random.bits(key, wide.shape, jnp.uint32)
    return stochastic_round(wide + step, bits).astype(jnp.float32) - wide


def _widened(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, tree
    )
