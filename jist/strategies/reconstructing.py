"""Workers reconstruct what their subnetworks lack (`jist.models.reconstruct`).

Before a round, every worker runs the full network over the first examples that it is about to train
on, and fits to it the linear maps of its subnetwork that read layers of neurons. What that adds to
their parameters is taken off again when the round ends: a step has no more operations for it, it
does not travel, and the full network knows nothing of it. What a worker computes does not depend on
the number of devices. It needs the full parameters when a round begins, as workers of a replicated
exchange have them, and no gradients of them. All examples that are seen pass at once: memory and
operations of the fit grow with `SEEN`, and with few local steps it costs as much as they do.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, Key

from jist import costs
from jist.models.reconstruct import Fitted
from jist.ragged import take
from jist.strategies.local import Examples, Loss, for_each_worker
from jist.strategies.streams import with_streams

SEEN = 1024  # examples over which a worker fits, or all of a shorter round


class Reconstructing:
    """How subnetworks are fitted to the full network.

    Args:
        model: the full network.
        loss: calls it on a batch.

    Attributes:
        layers: how many linear maps are fitted; there is nothing to do if none is.
    """

    def __init__(self, model: nnx.Module, loss: Loss):
        model = nnx.clone(model)
        model.train()
        self.layers = len(_fitted(model))
        self._loss = loss
        self._graphdefs = {}
        for phase in ("record", "fit"):
            model.set_attributes(Fitted, phase=phase, raise_if_not_found=False)
            self._graphdefs[phase], *_ = nnx.split(model, nnx.Param, ...)

    def added(
        self,
        subnets: Any,
        rest_of: Any,
        params: Any,
        rest: Any,
        examples: Examples,
        order: Int[Array, "local steps batch"],
        keys: Key[Array, " local"] | None,
        *,
        in_turn: bool,
    ) -> Any:
        """What is added to the parameters of this device's workers; None if nothing is.

        Args:
            subnets: the workers' parameters [local, ...].
            rest_of: their other variables [local, ...].
            params: the full parameters.
            rest: the full network's other variables.
            examples: tree of arrays [N, ...].
            order: which of them the workers train on.
            keys: what their random streams are drawn from; None without any.
            in_turn: as of `for_each_worker`.
        """
        if not self.layers:
            return None
        batches = -(-SEEN // order.shape[2])

        def one(own: Any, rest_of: Any, rows: Array, key: Any) -> Any:
            batch, whole = take(examples, rows[:batches].ravel()), rest
            if key is not None:  # both networks draw the same
                whole, rest_of = (with_streams(of, key) for of in (rest, rest_of))
            full = nnx.merge(self._graphdefs["record"], params, whole)
            subnet = nnx.merge(self._graphdefs["fit"], own, rest_of)
            self._loss(full, batch)
            for module, same in zip(_fitted(subnet), _fitted(full), strict=True):
                module.wanted = same.wanted
            self._loss(subnet, batch)
            fitted = nnx.to_pure_dict(nnx.state(subnet, nnx.Param))
            return jax.tree.map(jnp.subtract, fitted, own)

        return for_each_worker(one, subnets, rest_of, order, keys, in_turn=in_turn)

    def flops(
        self,
        own: tuple[Any, Any],
        full: tuple[Any, Any],
        examples: Examples,
        order: tuple[int, int],
    ) -> int:
        """Operations of one worker's fit, in matrix products.

        Args:
            own: shapes of the worker's parameters and other variables.
            full: the full network's, or their shapes.
            examples: tree of arrays [N, ...].
            order: steps and batch size of a round.
        """
        if not self.layers:
            return 0
        one = jax.tree.map(lambda of: jax.ShapeDtypeStruct((1, *of.shape), of.dtype), own)
        rows = jax.ShapeDtypeStruct((1, *order), jnp.int32)
        added = functools.partial(self.added, keys=None, in_turn=True)
        return costs.matmul_flops(added, *one, *full, examples, rows)


def _fitted(model: nnx.Module) -> list[Fitted]:
    return [module for _, module in nnx.iter_modules(model) if isinstance(module, Fitted)]
