"""Blocks of one shape, one after the other, that can be dealt to workers whole.

Dun, Wolfe, Jermaine, Kyrillidis: ResIST, Layer-wise Decomposition of ResNets for Distributed
Training (UAI 2022): every worker trains some of a network's residual blocks, and goes round the
others by their shortcuts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Stack(nnx.Module):
    """Blocks whose variables are stacked along a first axis, which a subnetwork has less of.

    A block that is there as padding has zeros in all its parameters. What lies beside its shortcut
    must then be zero, as it is behind a normalisation with scale and bias, or a linear map.

    Args:
        blocks: of one structure and with equal shapes; their values are copied.
        neurons: the name of their layer, `"stage1.blocks?"` say. Blocks may name neurons of their
            own: those of one name are dealt alike in all blocks.
    """

    def __init__(self, blocks: Sequence[nnx.Module], neurons: str):
        graphdef, *_ = nnx.split(blocks[0])
        states = [nnx.state(block) for block in blocks]
        self.each = nnx.merge(graphdef, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
        for _, variable in nnx.iter_graph(self.each):
            # Running averages lie along the neurons of their module's parameters (`jist.ist`).
            if isinstance(variable, nnx.Variable) and not isinstance(variable, nnx.BatchStat):
                own = variable.get_metadata().get("neurons", (None,) * (variable.ndim - 1))
                variable.set_metadata(neurons=(neurons, *own))

    def __call__(self, x: Float[Array, "..."], *shared: Any) -> Float[Array, "..."]:
        """X after all blocks, which give it back in its own shape.

        Args:
            x: what goes from block to block.
            *shared: further arguments of every block.
        """
        return _in_turn(self.each, x, shared)


@nnx.scan(in_axes=(0, nnx.Carry, None), out_axes=nnx.Carry)
def _in_turn(block: Any, x: Array, shared: tuple[Any, ...]) -> Array:
    return block(x, *shared)
