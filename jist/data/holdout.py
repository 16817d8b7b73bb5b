"""A seeded split: test images of data sets that bring none, and images to validate on."""

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
    """Which examples are held out, to test or to validate on: the same share of every class.

    Within its class an example is ranked by a hash of (seed, key), and the first ranks are held
    out. The order of the examples does not matter, and adding examples moves few of the others
    from one split to the other.

    Args:
        keys: the examples' keys [N].
        labels: their classes [N].
        class_names: names of the classes, for errors.
        share: share of each class, in (0, 1), rounded to examples; at least one example is held out
            and at least one is not.
        seed: decides which examples are held out.

    Raises:
        ValueError: a share outside (0, 1).
        DataError: a class has a single example.
    """
    if not 0 < share < 1:
        raise ValueError(f"share (--test-share) must lie in (0, 1), got {share}")
    sizes = _sizes(labels, class_names)
    counts = np.array([round(share * size) for size in sizes.tolist()])
    return _hold(keys, labels, np.clip(counts, 1, sizes - 1), seed)


def held_out_in_all(
    keys: Sequence[str],
    labels: Int[np.ndarray, " examples"],
    class_names: Sequence[str],
    *,
    count: int,
    seed: int,
) -> Bool[np.ndarray, " examples"]:
    """As `held_out`, for a number of examples in place of a share.

    `count` is divided among the classes in proportion to their sizes, by largest remainders, so
    each class is exact to one example. At least one example of every class is held out, even if
    that makes more than `count`, and at least one is not.

    Args:
        keys: the examples' keys [N].
        labels: their classes [N].
        class_names: names of the classes, for errors.
        count: examples to hold out, of all classes together.
        seed: decides which examples are held out.

    Raises:
        DataError: a class has a single example.
    """
    sizes = _sizes(labels, class_names)
    counts, remainders = np.divmod(sizes * count, len(keys))
    more = np.argsort(-remainders, kind="stable")[: count - counts.sum()]
    counts[more] += 1
    return _hold(keys, labels, np.clip(counts, 1, sizes - 1), seed)


def spared(
    keys: Sequence[str], labels: Int[np.ndarray, " examples"], *, share: float, seed: int
) -> Bool[np.ndarray, " examples"]:
    """As `held_out`, but of a small class possibly none: every class keeps an example or more.

    Args:
        keys: the examples' keys [N].
        labels: their classes [N].
        share: share of each class, in [0, 1), rounded to examples.
        seed: decides which examples are held out.
    """
    sizes = np.bincount(labels)
    counts = np.array([round(share * size) for size in sizes.tolist()], int)
    return _hold(keys, labels, np.clip(counts, 0, np.maximum(sizes - 1, 0)), seed)


def _sizes(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    sizes = np.bincount(labels, minlength=len(class_names))
    for name, size in zip(class_names, sizes, strict=True):
        if size < 2:
            raise DataError(
                f"class {name!r} has {size} image; holding some out, to test or to validate on, "
                "needs at least 2 in every class"
            )
    return sizes


def _hold(keys: Sequence[str], labels: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    ranks = np.array([_rank(seed, key) for key in keys], np.uint64)
    held = np.zeros(len(keys), bool)
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels == label)
        held[members[np.argsort(ranks[members], kind="stable")[:count]]] = True
    return held


def _rank(seed: int, key: str) -> int:
    text = f"{seed}/{key}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
