"""The multi-layer perceptron of `jist.models.mlp` for sparse features.

Its first layer costs what the entries of a batch cost, not the 135,909 columns of Amazon-670k
(Yuan et al., VLDB 2022, §5). Everything else is that of the dense one: neurons are named alike, so
it is partitioned and trained by the same strategies.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jist.models.mlp import MLP
from jist.models.sparse_rows import sparse_product

SparseRows = dict[str, Array]


class SparseMLP(MLP):
    """A multi-layer perceptron with ReLU on sparse rows.

    Args:
        widths: as for `MLP`, at least three.
        norm: as for `MLP`.
        dropout: as for `MLP`.
        entry_dropout: share of an example's entries that is dropped in training. Where examples
            are few and features many, it does more than dropout of hidden activations.
        row_length: scales every row to this Euclidean length; None leaves rows as they are. An
            example of many entries then counts no more than one of few.
        output_dtype: type of the output layer's kernel, most of the network where labels are many:
            float32, or bfloat16 (to be trained by `jist.strategies.stochastically_rounded`).
        negatives: as for `MLP`.
        rngs: as for `MLP`.

    Raises:
        ValueError: as for `MLP`; there is no hidden layer, a share outside [0, 1), or a length that
            is not positive.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        norm: str | None = "standardize",
        dropout: float = 0.0,
        entry_dropout: float = 0.0,
        row_length: float | None = None,
        output_dtype: DTypeLike = jnp.float32,
        negatives: int = 0,
        rngs: nnx.Rngs,
    ):
        if len(widths) < 3:
            raise ValueError(f"widths must hold at least one hidden layer, got {widths}")
        if not 0 <= entry_dropout < 1:
            raise ValueError(f"entry_dropout must lie in [0, 1), got {entry_dropout}")
        if row_length is not None and not 0 < row_length < math.inf:
            raise ValueError(f"row_length must be above 0 and finite, got {row_length}")
        super().__init__(widths, norm=norm, dropout=dropout, negatives=negatives, rngs=rngs)
        self.row_length = row_length
        self.last.kernel.set_value(self.last.kernel[...].astype(output_dtype))
        self.entry_dropout = nnx.Dropout(entry_dropout, rngs=rngs) if entry_dropout else None

    def __call__(  # type: ignore[override]  # other features, otherwise the same
        self, x: SparseRows
    ) -> Float[Array, "batch labels"]:
        """Logits [B, L] of sparse rows, {"indices": i32 [B, longest], "values": f32}.

        Rows are padded with the value 0.
        """
        return self.last(self.hidden(x))

    def hidden(self, x: SparseRows) -> Float[Array, "batch width"]:  # type: ignore[override]
        """What the output layer is given."""
        layer, values = self.layers[0], x["values"]
        if self.row_length is not None:
            squares = jnp.sum(values**2, axis=1, keepdims=True)
            values = values * jnp.where(squares > 0, self.row_length * jax.lax.rsqrt(squares), 0)
        if self.entry_dropout is not None:
            values = self.entry_dropout(values)
        z = sparse_product(x["indices"], values, layer.kernel[...])
        activations = self._activations(0, z if layer.bias is None else z + layer.bias[...])
        for i, layer in enumerate(self.layers[1:-1], start=1):
            activations = self._activations(i, layer(activations))
        return activations
