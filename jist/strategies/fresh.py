"""A new optimiser in every round that knows how far the training is.

`optimizer_state="reset"` forgets what the optimiser noted of the parameters (Adam's moments, and
the count that corrects their bias). Counters that stand by themselves, those of a schedule or a
warm-up, go on: the learning rate of a round does not start anew.
"""

from collections.abc import Sequence
from typing import Any

import jax
import optax


class FreshState:
    """What is left of an optimiser's state when a round begins.

    Args:
        optimizer: any Optax transformation or chain.
        params: the parameters, or their shapes.
    """

    def __init__(self, optimizer: optax.GradientTransformation, params: Any):
        self._optimizer = optimizer
        state = jax.eval_shape(optimizer.init, params)
        of_params = optax.tree_utils.tree_map_params(
            optimizer, lambda _: True, state, transform_non_params=lambda _: False
        )
        self._survives = jax.tree.leaves(_survivors(of_params))

    def kept(self, state: Any) -> tuple[Any, ...]:
        """The leaves of an optimiser's state that outlive a round."""
        leaves = jax.tree.leaves(state)
        return tuple(leaf for leaf, kept in zip(leaves, self._survives, strict=True) if kept)

    def start(self, params: Any, kept: Sequence[Any]) -> Any:
        """The optimiser's state at the beginning of a round.

        Args:
            params: the parameters that the round begins with.
            kept: what `kept` returned at the end of the round before.
        """
        leaves, structure = jax.tree.flatten(self._optimizer.init(params))
        old = iter(kept)
        return jax.tree.unflatten(
            structure,
            [
                next(old) if kept else leaf
                for leaf, kept in zip(leaves, self._survives, strict=True)
            ],
        )


def _survivors(of_params: Any) -> Any:
    """True for what no transformation keeps beside something of the parameters.

    Args:
        of_params: an optimiser's state, whose leaves say whether they belong to a parameter.
    """
    if not isinstance(of_params, tuple):
        return jax.tree.map(lambda _: False, of_params)
    if not hasattr(of_params, "_fields"):  # of a chain
        return tuple(map(_survivors, of_params))
    own = [field for field in of_params if not _holds_states(field)]
    survive = not any(jax.tree.leaves(own))
    return type(of_params)(
        *(
            _inner(field) if _holds_states(field) else jax.tree.map(lambda _: survive, field)
            for field in of_params
        )
    )


def _holds_states(field: Any) -> bool:
    """Whether a field of a transformation's state holds the states of others."""
    nodes = jax.tree.leaves(field, is_leaf=lambda node: isinstance(node, tuple))
    return any(isinstance(node, tuple) for node in nodes)


def _inner(field: Any) -> Any:
    return jax.tree.map(_survivors, field, is_leaf=lambda node: isinstance(node, tuple))
