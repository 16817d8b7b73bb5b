"""Scores of attention, reconstructed by least squares from some channels of every head.

The score of a query and a key is the sum of products over the channels of a head. A subnetwork has
some channels, queries q and keys k of its own, and estimates it by q k^T. While it is fitted, its
projection to keys is changed from k to k (1 + M)^T, so that over some examples the scores are
nearest to the full network's, Q K^T, as if every query met every key:

    M = (C_qq + λ)⁻¹ (C_qQ C_Kk - C_qq C_kk) (C_kk + λ)⁻¹

where C are moments of a head, those of keys around their mean: what is added to all keys alike does
not change where a query attends. λ is that of `jist.models.reconstruct`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jist.models.reconstruct import Fitted, ridged, solve
from jist.models.standardize import Scale

Queries = Float[Array, "batch queries heads channels"]
Keys = Float[Array, "batch tokens heads channels"]


class ReconstructScores(Fitted):
    """Stands between the projection to queries and keys and their scores.

    Args:
        width: channels of a whole head.
        neurons: the name of their layer.
    """

    def __init__(self, width: int, neurons: str):
        super().__init__()
        self.scale = Scale(width, neurons)

    def __call__(self, qkv: nnx.Linear, query: Queries, key: Keys) -> tuple[Queries, Keys]:
        """Queries and keys whose products estimate the full network's scores.

        Args:
            qkv: the fused projection that made them, which has a bias.
            query: of the channels that are there, times what a score is scaled by.
            key: likewise, not scaled.
        """
        query = self.scale(query)
        if self.phase == "fit":
            change = _fitted(_rows(query), _rows(key), *map(_rows, self.wanted))
            key = _change_keys(qkv, key, change)
        if self.phase == "record":
            self.wanted = query, key
        return query, key


def _rows(x: Keys) -> Float[Array, "heads rows channels"]:
    return jnp.moveaxis(x.reshape(-1, *x.shape[2:]), 1, 0).astype(jnp.float32)


@jax.vmap
def _fitted(
    query: Float[Array, "rows own"],
    key: Float[Array, "tokens own"],
    wanted_query: Float[Array, "rows all"],
    wanted_key: Float[Array, "tokens all"],
) -> Float[Array, "own own"]:
    """1 + M of every head."""
    key, wanted_key = (x - jnp.mean(x, axis=0) for x in (key, wanted_key))
    of_queries, of_keys = query.T @ query / len(query), key.T @ key / len(key)
    scores = (query.T @ wanted_query / len(query)) @ (wanted_key.T @ key / len(key))
    missing = scores - of_queries @ of_keys
    change = solve(ridged(of_queries, len(query)), missing)
    change = solve(ridged(of_keys, len(key)), change.T).T
    return jnp.eye(len(change)) + change


def _change_keys(qkv: nnx.Linear, key: Keys, change: Float[Array, "heads own own"]) -> Keys:
    """Changes the projection to keys, in place, and the keys that it made."""

    def changed(array: Array) -> Array:
        parts = array.reshape(*array.shape[:-1], 3, *change.shape[:2])
        keys = jnp.einsum("...hv,huv->...hu", parts[..., 1, :, :], change)
        return parts.at[..., 1, :, :].set(keys).reshape(array.shape)

    bias: Any = qkv.bias
    qkv.kernel[...] = changed(qkv.kernel[...])
    bias[...] = changed(bias[...])
    return jnp.einsum("bthv,huv->bthu", key, change.astype(key.dtype))
