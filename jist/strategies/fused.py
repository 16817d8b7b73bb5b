"""Optimiser steps of an output layer that never hold its gradient.

The output layer of 670,091 labels is most of a network, and its gradient as large. Where the loss
is computed a chunk of labels at a time, every chunk can take its step as soon as its gradient is
there (`jist.tasks.chunks.train_output`), and a step of plain SGD needs half the memory. Everything
else takes its step as always.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


class FusedOutput(optax.GradientTransformation):
    """An optimiser that trains the output layer a chunk of labels at a time.

    It takes an optimiser's place in the strategies whose workers take steps by themselves: all but
    `DataParallel`, which sends whole gradients. The steps are those of the optimiser alone, up to
    rounding. It needs a model with `hidden(x)` and `last`, and a loss like that of
    `jist.tasks.multilabel`, sigmoid or squared.

    Args:
        optimizer: any Optax transformation that treats every number by itself. Not one that looks
            at a whole gradient, as to clip it by its norm.

    >>> import optax
    >>> from jist.strategies import FusedOutput
    >>> fused = FusedOutput(optax.sgd(0.1))
    """

    def __new__(cls, optimizer: optax.GradientTransformation) -> "FusedOutput":
        """An optimiser's own functions."""
        return super().__new__(cls, optimizer.init, optimizer.update)


def fused_step(
    optimizer: optax.GradientTransformation,
    loss: Any,
    build: Callable[[Any], Any],
    params: Any,
    opt_state: Any,
    batch: Any,
    hold_padding: Callable[[Any], Any],
) -> tuple[Any, Any, Float[Array, ""]]:
    """A worker's optimiser step.

    Args:
        optimizer: in `FusedOutput` or not.
        loss: one with `hidden` and `train_output`, as `jist.tasks.label_loss.LabelLoss`.
        build: makes the model of its parameters.
        params: of the worker.
        opt_state: its optimiser's.
        batch: of examples.
        hold_padding: keeps padded numbers of a tree like the parameters at zero.

    Returns:
        Parameters and optimiser's state after the step, and the loss.

    Raises:
        ValueError: the loss does not go chunk by chunk.
    """
    if not hasattr(loss, "train_output"):
        raise ValueError(f"FusedOutput needs a loss over chunks of labels, got {loss!r}")
    hidden, back = jax.vjp(lambda params: loss.hidden(build(params), batch), params)
    layer = _Layer(optimizer, build(params).last, params, opt_state)

    def step(own: Any, gradients: tuple[Array, Array]) -> tuple[Array, Array, list[Array]]:
        some, state = layer.put(params, *own[:2]), layer.put_kept(opt_state, own[2])
        # Of the rest of the network nothing is used here, so none of it is computed.
        gradient = layer.put(jax.tree.map(jnp.zeros_like, params), *gradients)
        updates, state = optimizer.update(hold_padding(gradient), state, some)
        some = optax.apply_updates(some, hold_padding(updates))
        return (*layer.of(some), layer.kept(state))

    output = (*layer.of(params), layer.kept(opt_state))
    mean_loss, slopes, (kernel, bias, kept) = loss.train_output(step, hidden, output, batch)
    (gradient,) = back(slopes)
    updates, state = optimizer.update(hold_padding(gradient), opt_state, params)
    rest = optax.apply_updates(params, hold_padding(updates))
    return layer.put(rest, kernel, bias), layer.put_kept(state, kept), mean_loss


class _Layer:
    """Where kernel and bias of the output layer are, in trees of parameters and of their state."""

    def __init__(
        self, optimizer: optax.GradientTransformation, last: Any, params: Any, opt_state: Any
    ):
        held = {"kernel": last.kernel, "bias": last.bias}
        arrays = {name: of.get_value() for name, of in held.items() if of is not None}

        def name_of(leaf: Array) -> str:
            return next((name for name, array in arrays.items() if array is leaf), "")

        self._names = jax.tree.map(name_of, params)
        if "kernel" not in jax.tree.leaves(self._names):
            raise ValueError("FusedOutput needs a model whose last layer holds a kernel of its own")
        self._of_state = optax.tree_utils.tree_map_params(
            optimizer,
            lambda _, name: name,
            opt_state,
            self._names,
            transform_non_params=lambda _: "",
        )

    def of(self, params: Any) -> tuple[Array, Array]:
        """Kernel and bias; zeros where there is no bias, which nothing changes."""
        names = jax.tree.leaves(self._names)
        found = dict(zip(names, jax.tree.leaves(params), strict=True))
        kernel = found["kernel"]
        return kernel, found.get("bias", jnp.zeros(kernel.shape[1]))

    def put(self, params: Any, kernel: Array, bias: Array) -> Any:
        """Other values in their places."""
        new = {"kernel": kernel, "bias": bias}
        return jax.tree.map(lambda name, leaf: new.get(name, leaf), self._names, params)

    def kept(self, opt_state: Any) -> list[Array]:
        """What the optimiser keeps of them."""
        pairs = zip(jax.tree.leaves(self._of_state), jax.tree.leaves(opt_state), strict=True)
        return [leaf for name, leaf in pairs if name]

    def put_kept(self, opt_state: Any, kept: list[Array]) -> Any:
        """Other values in their places."""
        new = iter(kept)
        return jax.tree.map(
            lambda name, leaf: next(new) if name else leaf, self._of_state, opt_state
        )
