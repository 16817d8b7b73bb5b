"""Synthetic examples of the shape of Amazon-670k: made up, to measure size and speed on.

Frequencies of labels and features follow power laws, and a structure is planted: labels come in
groups, every group and every label has features of its own, and an example shows some of those of
its labels among features that tell nothing. Everything follows from a seed.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from jist.data.sparse.repository import SPLITS, SparseExamples
from jist.ragged import Ragged

# Amazon-670k by the Extreme Classification Repository.
FEATURES, LABELS = 135_909, 670_091
EXAMPLES = {"train": 490_449, "test": 153_025}
FEATURES_PER_EXAMPLE, LABELS_PER_EXAMPLE = 75.7, 5.45  # means

# A share u^power of a power law's ranks is drawn with a uniform u: frequencies fall with the rank
# to the power of 1 / power - 1. The most frequent of 670,091 labels then has 0.12 % of the examples
# for each that it draws, as in Amazon-670k the first of 490,449 examples has 1,826.
LABEL_POWER, FEATURE_POWER, OWN_POWER = 2.0, 5.0, 1.5
GROUP = 10  # labels
OF_GROUP, OF_LABEL = 6, 6  # features that tell of it
# Drawn for an example; what is drawn twice counts once, which leaves those above.
FEATURES_DRAWN, LABELS_DRAWN = 101, 5.85
SHOWN = 0.4  # of an example's features tell of its labels
MOST_LABELS = 7
BLOCK = 4096  # examples that are drawn at once, whichever are wanted


@dataclasses.dataclass(frozen=True)
class AmazonLike:
    """Examples that can be drawn a block at a time.

    Attributes:
        features: number of features F.
        labels: number of labels L.
        seed: decides everything.

    Raises:
        ValueError: a number is not positive.
    """

    features: int = FEATURES
    labels: int = LABELS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "labels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def block(self, split: str, number: int) -> SparseExamples:
        """The examples `number * BLOCK` and so on, `BLOCK` of them.

        Args:
            split: "train" or "test".
            number: of the block.
        """
        draw = np.random.default_rng([self.seed, SPLITS.index(split), number])
        labels, wanted = self._labels(draw)
        rows, features = self._features(draw, labels, wanted)
        values = draw.gamma(2.0, 1.0, len(features)).astype(np.float32) + np.float32(0.1)
        counts = np.bincount(rows, minlength=BLOCK)
        kept = labels >= 0
        return SparseExamples(
            name="amazon-like",
            split=split,
            features=Ragged.of(counts, {"indices": features, "values": np.round(values, 3)}),
            labels=Ragged.of(kept.sum(axis=1), labels[kept], fill=-1),
            feature_count=self.features,
            label_count=self.labels,
            numbers=number * BLOCK + np.arange(BLOCK),
        )

    def examples(self, split: str, count: int) -> SparseExamples:
        """The first examples of a split, in memory."""
        blocks = [self.block(split, number) for number in range(-(-count // BLOCK))]
        parts = [
            block.rows(np.arange(min(BLOCK, count - i * BLOCK))) for i, block in enumerate(blocks)
        ]

        def joined(rows: list[Ragged]) -> Ragged:
            lengths = np.concatenate([np.diff(some.offsets) for some in rows])
            if not isinstance(rows[0].entries, dict):
                return Ragged.of(lengths, np.concatenate([r.entries for r in rows]), fill=-1)
            names = rows[0].entries
            return Ragged.of(
                lengths, {n: np.concatenate([r.entries[n] for r in rows]) for n in names}
            )

        return dataclasses.replace(
            parts[0],
            features=joined([part.features for part in parts]),
            labels=joined([part.labels for part in parts]),
            numbers=np.arange(count),
        )

    def _labels(self, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Labels of each example, -1 where there are fewer [BLOCK, most], and features wanted."""
        first = _ranks(draw.random(BLOCK), self.labels, LABEL_POWER)
        # The others are of the first one's group, in which each stands once.
        begin = first // GROUP * GROUP
        size = np.minimum(GROUP, self.labels - begin)[:, None]
        order = np.argsort(draw.random((BLOCK, GROUP)) + (np.arange(GROUP) >= size), axis=1)
        number = np.minimum(1 + draw.poisson(LABELS_DRAWN - 1, BLOCK), MOST_LABELS)
        group = begin[:, None] + order
        group = np.where((order < size) & (group != first[:, None]), group, -1)
        group = np.take_along_axis(group, np.argsort(group < 0, axis=1, kind="stable"), axis=1)
        labels = np.concatenate([first[:, None], group[:, : MOST_LABELS - 1]], axis=1)
        labels = np.where(np.arange(MOST_LABELS) < number[:, None], labels, -1)
        wanted = np.maximum(draw.poisson(FEATURES_DRAWN, BLOCK), 1)
        return labels.astype(np.int32), wanted

    def _features(
        self, draw: np.random.Generator, labels: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and features of all entries, in order, each once: fewer than wanted."""
        rows = np.repeat(np.arange(BLOCK), wanted)
        number = (labels >= 0).sum(axis=1)
        label = labels[rows, (draw.random(len(rows)) * number[rows]).astype(int)]
        place = draw.integers(0, OF_GROUP + OF_LABEL, len(rows))
        told = np.where(place < OF_GROUP, self._own(label // GROUP, place), self._own(label, place))
        noise = _ranks(draw.random(len(rows)), self.features, FEATURE_POWER)
        features = np.where(draw.random(len(rows)) < SHOWN, told, noise)
        both = np.unique(rows * np.int64(self.features) + features)
        rows, features = np.divmod(both, self.features)
        return rows, features.astype(np.int32)

    def _own(self, which: Int[np.ndarray, " n"], place: Int[np.ndarray, " n"]) -> np.ndarray:
        """Features of a label, or of a group: functions of the seed alone."""
        hashed = _mixed(
            which.astype(np.uint64) * np.uint64(64) + place.astype(np.uint64), self.seed
        )
        return _ranks(hashed / 2.0**64, self.features, OWN_POWER)


def _ranks(uniform: Float[np.ndarray, " n"], number: int, power: float) -> Int[np.ndarray, " n"]:
    return np.minimum(number * uniform**power, number - 1).astype(np.int64)


def _mixed(x: np.ndarray, seed: int) -> np.ndarray:
    """Pseudo-random 64 bits of each number (SplitMix64; Steele et al., OOPSLA 2014)."""
    x = x + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
