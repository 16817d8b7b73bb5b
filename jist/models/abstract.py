"""Modules with shapes in place of arrays, to be filled from a file."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


def abstract(build: Callable[..., Module], *arguments: Hashable, **options: Hashable) -> Module:
    """The module that `build` makes, with `jax.ShapeDtypeStruct`s in place of its parameters.

    Args:
        build: a class of modules that takes `rngs`.
        arguments: what else it takes.
        options: what it takes by name.

    Returns:
        A module of its own for every caller, who fills it.
    """
    return nnx.clone(_traced(build, arguments, tuple(options.items())))


# Flax's random streams look through all that was traced before at every number they draw, so that
# the time of tracing grows with the square of the depth; and programs load an encoder many times.
@functools.lru_cache(maxsize=16)
def _traced(build: Callable[..., Any], arguments: tuple, options: tuple) -> Any:
    return nnx.eval_shape(lambda: build(*arguments, **dict(options), rngs=nnx.Rngs(0)))


def as_shapes(build: Callable[[], Module]) -> Module:
    """The module that `build` makes, whose parameters alone are `jax.ShapeDtypeStruct`s.

    A strategy lays its other variables out at once, so these are there, as zeros (and keys); the
    parameters are drawn where they lie (`jist.strategies.Strategy.init`).
    """
    model = nnx.eval_shape(build)
    nnx.update(model, jax.tree.map(_zeros, nnx.state(model, nnx.Not(nnx.Param))))
    return model


def _zeros(of: Any) -> jax.Array:
    """An array of a shape and type; of keys, which every worker draws anew, one by one."""
    if jnp.issubdtype(of.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), of.shape)
    return jnp.zeros(of.shape, of.dtype)
