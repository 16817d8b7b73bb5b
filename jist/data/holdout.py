"""A seeded split for data sets that bring none."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from jist.data.errors import DataError


def held_out(
    keys: Sequence[str],
    labels: Int[np.ndarray, " examples"],
    class_names: Sequence[str],
    *,
    share: float,
    seed: int,
) -> Bool[np.ndarray, " examples"]:
    """Which examples are held out for testing: the same share of every class.

    Within its class an example is ranked by a hash of (seed, key), and the first ranks are held
    out. The order of the examples plays no part, and adding some moves few others across.

    Args:
        keys: the examples' keys [N].
        labels: their classes [N].
        class_names: names of the classes, for errors.
        share: share of each class, in (0, 1), rounded to examples; at least one example is held out
            and at least one is not.
        seed: another seed, another split.

    Raises:
        ValueError: a share outside (0, 1).
        DataError: a class has a single example.
    """
    if not 0 < share < 1:
        raise ValueError(f"test_share must lie in (0, 1), got {share}")
    ranks = np.array([_rank(seed, key) for key in keys], np.uint64)
    held = np.zeros(len(keys), bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise DataError(
                f"class {name!r} has {len(members)} image; splitting into train and test needs at "
                "least 2 in every class"
            )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    return held


def _rank(seed: int, key: str) -> int:
    text = f"{seed}/{key}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
