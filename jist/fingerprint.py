"""What an optimiser computes, as a short text: a run must not go on with another one unnoticed."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

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
    digest = hashlib.sha256()
    for program in (
        jax.make_jaxpr(optimizer.init)(shapes),
        jax.make_jaxpr(optimizer.update)(shapes, state, shapes),
    ):
        # Functions that are part of it are printed with their addresses.
        digest.update(re.sub(r"0x[0-9a-f]+", "", str(program)).encode())
        for constant in _constants(program):
            digest.update(_bytes(constant))
    name = f"optimizer (by JAX {jax.__version__} and Optax {optax.__version__})"
    return {name: digest.hexdigest()[:16]}


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
