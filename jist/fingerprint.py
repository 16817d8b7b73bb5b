"""What a run computes, as short texts: it must not go on with something else unnoticed."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr


def optimizer_fingerprint(optimizer: optax.GradientTransformation, params: Any) -> dict[str, str]:
    """A digest of the programs by which an optimiser starts and steps, under a name that says so.

    Those hold whatever it depends on: the links of a chain, learning rates, schedules and masks,
    closures too. Other versions of JAX or Optax may write the same down otherwise: they stand in
    the name, so that only digests of the same versions are compared.

    Args:
        optimizer: any chain of Optax.
        params: tree of arrays, or of their shapes.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    state = jax.eval_shape(optimizer.init, shapes)
    name = f"optimizer (by JAX {jax.__version__} and Optax {optax.__version__})"
    start, step = jax.make_jaxpr(optimizer.init), jax.make_jaxpr(optimizer.update)
    return {name: _digest(start(shapes), step(shapes, state, shapes))}


def loss_fingerprint(loss: Callable[..., Any], *shapes: Any) -> dict[str, str]:
    """A digest of the program by which a network and its loss are computed, as for an optimiser.

    Networks may be computed in other ways on other platforms: the platform stands in the name, too.

    Args:
        loss: a pure function of trees of arrays.
        *shapes: what it is called with: trees of arrays, or of their shapes.
    """
    versions = f"JAX {jax.__version__} and Flax {flax.__version__}"
    name = f"network and loss (by {versions} on {jax.default_backend()})"
    return {name: _digest(jax.make_jaxpr(loss)(*shapes))}


def _digest(*programs: ClosedJaxpr) -> str:
    digest = hashlib.sha256()
    for program in programs:
        # Functions that are part of it are printed with their addresses.
        digest.update(re.sub(r"0x[0-9a-f]+", "", str(program)).encode())
        for constant in _constants(program):
            digest.update(_bytes(constant))
    return digest.hexdigest()[:16]


def _bytes(array: Any) -> bytes:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


def _constants(program: ClosedJaxpr) -> Iterator[Any]:
    """The arrays that a program and what it calls hold, which its print leaves out."""
    yield from program.consts
    for equation in program.jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, ClosedJaxpr):
                yield from _constants(value)
