"""Optimiser steps that touch only those rows of a kernel that a batch uses.

The first layer's kernel has a row for every feature, 135,909 of Amazon-670k, and a batch uses some
thousand of them. All others have a gradient of exactly 0, which a dense optimiser still reads,
writes and adds. Here the rows in use are taken out, trained as a small kernel, and put back.

For plain SGD this is the dense step. An optimiser that would move a row without a gradient (moments
that fade, weight decay) leaves it alone until a batch uses it: what PyTorch calls SparseAdam, lazy
Adam elsewhere. Its count of steps, by which moments are corrected, is that of all steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

KERNEL = ("layers", 0, "kernel")  # of jist.models.SparseMLP


class LazyRows(optax.GradientTransformation):
    """An optimiser that trains the rows of one kernel only where a batch has them.

    It takes an optimiser's place in the strategies whose workers take steps by themselves: all but
    `DataParallel`, which sends whole gradients.

    Args:
        optimizer: any Optax transformation that treats every number of the kernel by itself.
        kernel: where the kernel lies in the parameters.

    >>> import optax
    >>> from jist.strategies import LazyRows
    >>> lazy = LazyRows(optax.adam(1e-3))
    """

    kernel: tuple[str | int, ...]

    def __new__(
        cls, optimizer: optax.GradientTransformation, kernel: tuple[str | int, ...] = KERNEL
    ) -> "LazyRows":
        """An optimiser's own functions, and the kernel's place."""
        lazy = super().__new__(cls, optimizer.init, optimizer.update)
        lazy.kernel = kernel
        return lazy

    def rows(self, batch: Any, params: Any) -> tuple[Int[Array, " used"], Any]:
        """Which rows a batch uses, and the batch with their places in the place of their numbers.

        Args:
            batch: {"x": {"indices": i32 [B, longest], "values": [B, longest]}, ...}; where a value
                is 0, there is no entry.
            params: the parameters.

        Returns:
            Numbers of rows, ascending, padded with the number of all rows; and the batch.

        Raises:
            ValueError: the batch has no sparse rows.
        """
        x = batch["x"]
        if not isinstance(x, dict) or not {"indices", "values"} <= x.keys():
            raise ValueError(
                'lazy rows need sparse examples, {"x": {"indices", "values"}, ...}, got '
                f"{jax.tree.structure(x)}"
            )
        total = _at(params, self.kernel).shape[0]
        indices = jnp.where(x["values"] != 0, x["indices"], total)
        most = min(indices.size, total) + 1  # the last for what is no entry
        used, places = jnp.unique(indices, size=most, fill_value=total, return_inverse=True)
        places = places.reshape(indices.shape).astype(x["indices"].dtype)
        return used, batch | {"x": x | {"indices": places}}

    def take(self, tree: Any, params: Any, used: Int[Array, " used"]) -> Any:
        """Parameters, or the optimiser's state of them, with the used rows alone."""

        def rows(leaf: Array, *_: Any) -> Array:
            return leaf.at[used].get(mode="fill", fill_value=0)

        return self._where_kernel(rows, tree, params)

    def put(self, tree: Any, params: Any, used: Int[Array, " used"], taken: Any) -> Any:
        """What was taken, in its place; everything else is as in `taken`."""

        def rows(leaf: Array, own: Array) -> Array:
            return leaf.at[used].set(own, mode="drop", indices_are_sorted=True)

        return self._where_kernel(rows, tree, params, taken)

    def _where_kernel(
        self, change: Callable[..., Array], tree: Any, params: Any, other: Any = None
    ) -> Any:
        """Changes the kernel's leaves; the others are those of `other`, if it is given."""
        paths = jax.tree_util.tree_map_with_path(lambda path, _: _names(path), params)
        if not any(path == self.kernel for path in jax.tree.leaves(paths, is_leaf=_is_path)):
            raise ValueError(f"params must hold a kernel at {self.kernel}, got {list(params)}")
        kernel = jax.tree.map(lambda path: path == self.kernel, paths, is_leaf=_is_path)

        def leaf(own: Array, wanted: bool, new: Array | None = None) -> Array:
            if wanted:
                return change(own, new)
            return own if new is None else new

        if jax.tree.structure(tree) == jax.tree.structure(params):
            rest = () if other is None else (other,)
            return jax.tree.map(leaf, tree, kernel, *rest)
        found = optax.tree_utils.tree_map_params(
            self, lambda _, wanted: wanted, tree, kernel, transform_non_params=_false
        )
        rest = () if other is None else (other,)
        return jax.tree.map(leaf, tree, found, *rest)


def _false(_: Any) -> bool:
    return False


def _is_path(node: Any) -> bool:
    return isinstance(node, tuple)


def _names(path: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(getattr(key, "key", getattr(key, "idx", None)) for key in path)


def _at(params: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        params = params[name]
    return params
