"""The state of a training between two rounds."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class State:
    """Everything that training changes.

    Attributes:
        params: nested dict of arrays, the full parameters.
        opt_state: the optimiser's state between rounds; empty where every round starts anew.
        round: number of rounds done, i32 [].
        key: PRNG key; round t draws from `fold_in(key, t)`.
        order: which worker holds which neurons, of a crossed partition (`jist.ist.crossed`); empty
            of others.
        average: moving average of `params` over the rounds; empty where none is kept.
    """

    # Not annotated as arrays: JAX puts shapes, shardings and placeholders in their place.
    params: Any
    opt_state: Any
    round: Any
    key: Any
    order: Any = ()
    average: Any = ()


def _fields_of(state: State) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    """The fields with their keys, and their names; none that is empty by default.

    Checkpoints of before there was such a field do not hold it.
    """
    names = [field.name for field in dataclasses.fields(State)]
    for name in ("order", "average"):
        if isinstance(getattr(state, name), tuple) and not getattr(state, name):
            names.remove(name)
    return [(jax.tree_util.GetAttrKey(name), getattr(state, name)) for name in names], (*names,)


def _of_fields(names: tuple[str, ...], fields: Iterable[Any]) -> State:
    return State(**dict(zip(names, fields, strict=True)))


jax.tree_util.register_pytree_with_keys(State, _fields_of, _of_fields)
