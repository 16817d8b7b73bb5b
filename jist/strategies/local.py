"""What workers do by themselves between two exchanges: batches, gradients, optimiser steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from jist.ragged import take
from jist.strategies.fused import FusedOutput, fused_step
from jist.strategies.lazy import LazyRows
from jist.strategies.streams import step_keys, with_streams

Examples = Any  # tree of arrays [N, ...] and of `jist.ragged.Ragged` rows
Loss = Callable[[nnx.Module, Any], Float[Array, ""]]


def softmax_cross_entropy(model: nnx.Module, batch: dict[str, Any]) -> Float[Array, ""]:
    """Mean cross-entropy of a classifier on {"x": [B, ...], "y": i32 [B]}, in nats."""
    logits = model(batch["x"])  # type: ignore[operator]  # any classifier module
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """How a worker trains a network or a subnet of it.

    Attributes:
        graphdef: the network without its variables; those of a subnet have other shapes.
        optimizer: the worker's optimiser.
        loss: maps a model and a batch of examples to a scalar.
    """

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    loss: Loss

    def batch_loss(
        self,
        params: Any,
        rest: Any,
        examples: Examples,
        rows: Int[Array, " batch"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, ""]:
        """Loss of one batch.

        Args:
            params: the parameters.
            rest: the variables that are not trained.
            examples: tree of arrays [N, ...].
            rows: which of them make up the batch [B].
            key: what random streams are drawn from, if there are any.
        """
        return self._loss_of(params, rest, take(examples, rows), key)

    def _loss_of(
        self, params: Any, rest: Any, batch: Any, key: PRNGKeyArray | None
    ) -> Float[Array, ""]:
        return self.loss(self._model(params, rest, key), batch)

    def _model(self, params: Any, rest: Any, key: PRNGKeyArray | None) -> nnx.Module:
        if key is not None:
            rest = with_streams(rest, key)
        return nnx.merge(self.graphdef, params, rest)

    def gradient(
        self,
        params: Any,
        rest: Any,
        examples: Examples,
        rows: Int[Array, " batch"],
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, ""], Any]:
        """Loss and gradient of one batch; arguments as for `batch_loss`."""
        return jax.value_and_grad(self.batch_loss)(params, rest, examples, rows, key)

    def steps(
        self,
        params: Any,
        rest: Any,
        opt_state: Any,
        examples: Examples,
        order: Int[Array, "steps batch"],
        mask: Any = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Any, Any, Float[Array, " steps"]]:
        """One worker's optimiser steps.

        Args:
            params: its parameters.
            rest: its variables that are not trained.
            opt_state: its optimiser's state.
            examples: tree of arrays [N, ...].
            order: the rows of each step [steps, B].
            mask: 0 where a padded parameter must stay zero; None without any padding.
            key: what its random streams are drawn from; None without any.

        Returns:
            Parameters and optimiser's state after the steps, and the loss of each.
        """

        def hold_padding(tree: Any) -> Any:
            return tree if mask is None else jax.tree.map(jnp.multiply, tree, mask)

        def lazy_step(
            carry: tuple[Any, Any], own: tuple[Any, Any]
        ) -> tuple[tuple[Any, Any], Array]:
            lazy, (params, opt_state) = self.optimizer, carry
            assert isinstance(lazy, LazyRows)
            used, batch = lazy.rows(take(examples, own[0]), params)
            some, state = (lazy.take(tree, params, used) for tree in carry)
            loss, gradient = jax.value_and_grad(self._loss_of)(some, rest, batch, own[1])
            # Padding is along neurons, never along the rows of the first kernel.
            updates, state = lazy.update(hold_padding(gradient), state, some)
            some = optax.apply_updates(some, hold_padding(updates))
            new = lazy.put(params, params, used, some), lazy.put(opt_state, params, used, state)
            return new, loss

        def in_chunks(
            carry: tuple[Any, Any], own: tuple[Any, Any]
        ) -> tuple[tuple[Any, Any], Array]:
            params, opt_state, loss = fused_step(
                self.optimizer,
                self.loss,
                lambda params: self._model(params, rest, own[1]),
                *carry,
                take(examples, own[0]),
                hold_padding,
            )
            return (params, opt_state), loss

        def step(carry: tuple[Any, Any], own: tuple[Any, Any]) -> tuple[tuple[Any, Any], Array]:
            params, opt_state = carry
            loss, gradient = self.gradient(params, rest, examples, *own)
            updates, opt_state = self.optimizer.update(hold_padding(gradient), opt_state, params)
            return (optax.apply_updates(params, hold_padding(updates)), opt_state), loss

        keys = None if key is None else step_keys(key, len(order))
        one = {LazyRows: lazy_step, FusedOutput: in_chunks}.get(type(self.optimizer), step)
        (params, opt_state), losses = jax.lax.scan(one, (params, opt_state), (order, keys))
        return params, opt_state, losses

    def steps_of_all(
        self,
        params: Any,
        rest: Any,
        opt_state: Any,
        examples: Examples,
        order: Int[Array, "local steps batch"],
        mask: Any,
        keys: Key[Array, " local"] | None,
        present: Bool[Array, " local"] | None = None,
        *,
        in_turn: bool,
    ) -> tuple[Any, Any, Float[Array, "local steps"]]:
        """`steps` of every worker of a device; all but `examples` have an axis of workers.

        A worker that is not `present` gives back what it was given, and losses of 0.
        """

        def one(
            params: Any, rest: Any, opt_state: Any, order: Array, mask: Any, key: Any, present: Any
        ) -> tuple[Any, Any, Array]:
            def train() -> tuple[Any, Any, Array]:
                return self.steps(params, rest, opt_state, examples, order, mask, key)

            if present is None:
                return train()
            losses = jax.eval_shape(train)[2]
            nothing = jnp.zeros(losses.shape, losses.dtype)
            return jax.lax.cond(present, train, lambda: (params, opt_state, nothing))

        own = (params, rest, opt_state, order, mask, keys, present)
        return for_each_worker(one, *own, in_turn=in_turn)


def for_each_worker(function: Callable[..., Any], *arguments: Any, in_turn: bool) -> Any:
    """Applies a function to the arguments of every worker of a device, [local, ...] each.

    Args:
        function: what a worker does.
        *arguments: trees of arrays.
        in_turn: one worker after the other, as is best on a CPU, where a worker's parameters then
            stay in the caches over its steps; else all at once, without which small operations
            leave a GPU idle. One worker alone never has an axis of its own: XLA:CPU lays its
            gradients out transposed if it has. Nor is there a loop around it.
    """
    if len(jax.tree.leaves(arguments)[0]) == 1:
        alone = function(*jax.tree.map(lambda leaf: jnp.squeeze(leaf, 0), arguments))
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), alone)
    if in_turn:
        return jax.lax.map(lambda own: function(*own), arguments)
    return jax.vmap(function)(*arguments)


def worker_metrics(
    losses: Float[Array, "local steps"], weights: Float[Array, " workers"] | None = None
) -> dict[str, Array]:
    """The metrics of a round, from the losses of the workers of each device.

    Args:
        losses: of this device's workers.
        weights: of all workers, 0 of those that were absent; None if all took part.
    """
    loss = jax.lax.all_gather(jnp.mean(losses, axis=1), "workers", tiled=True)
    if weights is not None:
        loss = jnp.where(weights > 0, loss, jnp.sum(loss * weights))
    return {"loss": loss}
