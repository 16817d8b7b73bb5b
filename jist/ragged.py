"""Examples in memory: trees of arrays, some of whose rows may be of unequal length.

`Ragged` holds such rows one after the other, so that a million sparse rows take the memory of their
entries, not of a million times the longest row. What is taken out of it is padded: a batch has one
shape, whichever rows are in it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ragged:
    """N rows of unequal length, the entries of one after those of the other.

    Attributes:
        offsets: where each row begins, and at last the number of all entries, i32 [N + 1].
        entries: tree of arrays [entries], e.g. {"indices", "values"} of a sparse matrix.
        longest: entries of the longest row, to which all are padded when they are taken.
        fill: what the padding holds.
    """

    # Not annotated as arrays: JAX puts shapes, shardings and placeholders in their place.
    offsets: Any
    entries: Any
    longest: int = dataclasses.field(metadata={"static": True})
    fill: int = dataclasses.field(default=0, metadata={"static": True})

    @classmethod
    def of(cls, lengths: Int[np.ndarray, " rows"], entries: Any, *, fill: int = 0) -> "Ragged":
        """Rows of these lengths.

        Args:
            lengths: entries of each row [N].
            entries: tree of arrays [entries].
            fill: what the padding holds.

        Raises:
            ValueError: there are more entries than 32 bits can count.
        """
        total = int(lengths.sum(dtype=np.int64))
        if total > np.iinfo(np.int32).max:
            raise ValueError(f"entries must be fewer than 2^31, got {total}")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return cls(offsets, entries, int(lengths.max(initial=0)), fill)

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def __getitem__(self, rows: Any) -> Any:
        """Some rows, padded to the longest of all.

        Args:
            rows: their numbers [B], or a slice.

        Returns:
            A tree of arrays [B, longest] like `entries`; of NumPy's on the host.
        """
        xp = np if isinstance(self.offsets, np.ndarray) and not isinstance(rows, Array) else jnp
        first, last = self.offsets[:-1][rows], self.offsets[1:][rows]
        at = first[:, None] + xp.arange(self.longest, dtype=xp.int32)
        held = at < last[:, None]

        def leaf(array: Any) -> Any:
            if not array.shape[0]:  # there is nothing to take
                return xp.full(at.shape, self.fill, array.dtype)
            taken = xp.take(array, xp.minimum(at, array.shape[0] - 1), axis=0)
            return xp.where(held, taken, xp.asarray(self.fill, array.dtype))

        return jax.tree.map(leaf, self.entries)

    def rows(self, which: Int[np.ndarray, " some"]) -> "Ragged":
        """Some rows, on the host, as rows of unequal length; `longest` stays, as does the shape."""
        lengths = np.diff(self.offsets)[which]
        starts = np.repeat(self.offsets[:-1][which] - np.cumsum(lengths) + lengths, lengths)
        at = starts + np.arange(lengths.sum())
        entries = jax.tree.map(lambda array: array[at], self.entries)
        some = Ragged.of(lengths, entries, fill=self.fill)
        return dataclasses.replace(some, longest=self.longest)


def take(examples: Any, rows: Any) -> Any:
    """Some of the examples, in compiled programs and on the host.

    Args:
        examples: tree of arrays [N, ...] and of `Ragged` rows.
        rows: which of them [B], or a slice.

    Returns:
        The tree of arrays [B, ...]; ragged rows are padded.
    """
    return jax.tree.map(lambda leaf: leaf[rows], examples, is_leaf=_is_ragged)


def batch_shapes(examples: Any, batch: int) -> Any:
    """The shapes of so many examples, as `take` gives them."""
    rows = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return jax.eval_shape(take, examples, rows)


def count(examples: Any) -> int:
    """The number N of examples in a tree of arrays [N, ...] and ragged rows, or of their shapes.

    Raises:
        ValueError: there is no array, or they differ in N.
    """
    shapes = {
        jax.tree_util.keystr(path): (len(leaf),) if _is_ragged(leaf) else leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(examples, is_leaf=_is_ragged)
    }
    if len({shape[:1] for shape in shapes.values()}) != 1 or () in shapes.values():
        raise ValueError(
            "examples must be a tree of arrays [N, ...] that agree in N, got "
            + (", ".join(f"{list(shape)} at {path}" for path, shape in shapes.items()) or "none")
        )
    return next(iter(shapes.values()))[0]


def _is_ragged(node: Any) -> bool:
    return isinstance(node, Ragged)
