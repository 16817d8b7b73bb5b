"""Which examples each worker may see.

Shared: every worker sees all examples, as in Kariotakis et al. (CPAL 2024), §3.1.2. Sharded: each
worker has its own shard, as in federated learning. Shards have the same mix of classes, or are
skewed by label: each class's shares are drawn from a Dirichlet distribution (Yurochkin et al.:
Bayesian Nonparametric Federated Learning of Neural Networks, ICML 2019).
"""

import numpy as np
from jaxtyping import Int


def sharded_pools(
    labels: Int[np.ndarray, " examples"],
    workers: int,
    *,
    seed: int,
    alpha: float | None = None,
) -> list[Int[np.ndarray, "..."]]:
    """Splits the examples into one disjoint pool for each worker.

    Args:
        labels: labels of the examples [N].
        workers: number of workers n.
        seed: decides the split.
        alpha: concentration of the Dirichlet distribution from which each class's shares are drawn;
            small values give workers few classes each. By default all pools have the same mix.

    Returns:
        Indices of each worker's examples, ascending.

    Raises:
        ValueError: more workers than examples, or `alpha` is not positive, or a worker is left
            without an example.
    """
    if not 1 <= workers <= len(labels):
        raise ValueError(f"workers must be between 1 and the {len(labels)} examples, got {workers}")
    generator = np.random.default_rng([seed, workers, 0x9001])
    if alpha is None:
        shuffled = generator.permutation(len(labels))
        return [np.sort(shuffled[worker::workers]) for worker in range(workers)]
    if alpha <= 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    owner = np.empty(len(labels), int)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(generator.dirichlet(np.full(workers, alpha))) * len(rows)
        owner[rows] = np.searchsorted(np.round(ends[:-1]), np.arange(len(rows)), side="right")
    pools = [np.flatnonzero(owner == worker) for worker in range(workers)]
    empty = [worker for worker, pool in enumerate(pools) if not len(pool)]
    if empty:
        raise ValueError(f"alpha={alpha} leaves workers {empty} without an example; use a larger")
    return pools
