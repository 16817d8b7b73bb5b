"""Rounds in which a share of the workers takes part.

McMahan et al.: Communication-Efficient Learning of Deep Networks from Decentralized Data. AISTATS
2017: every round k of n workers are drawn at random. Who is drawn follows from the state's key and
the round, so that every device knows it and a training that is resumed sees the same workers.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Folded into the state's key first: rounds, which partitions are drawn from, never get this far.
_ABSENCES = 2**32 - 2


def participants(workers: int, share: float) -> int:
    """How many workers take part in a round: a share of them, rounded, and at least one.

    >>> participants(8, 0.5), participants(8, 0.01)
    (4, 1)

    Raises:
        ValueError: the share does not lie in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"participation must lie in (0, 1], got {share}")
    return max(1, round(workers * share))


def participation_weights(
    key: PRNGKeyArray, round_number: Int[Array, ""], workers: int, taking_part: int
) -> Float[Array, " {workers}"] | None:
    """What each worker weighs in a round's averages, summing to 1; 0 of those that are absent.

    Args:
        key: of the state.
        round_number: number of the round.
        workers: number of workers n.
        taking_part: how many of them take part, k.

    Returns:
        1 / k for k workers that are drawn at random; None if all take part.
    """
    if taking_part == workers:
        return None
    of_round = jax.random.fold_in(jax.random.fold_in(key, _ABSENCES), round_number)
    place = jax.random.permutation(of_round, workers)
    return jnp.where(place < taking_part, 1 / taking_part, 0.0)
