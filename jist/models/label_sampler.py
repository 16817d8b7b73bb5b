"""Labels that are drawn at random in every step, to be trained against in the place of all."""

import jax
from flax import nnx
from jaxtyping import Array, Int


class LabelSampler(nnx.Module):
    """Draws labels in training, with replacement, each as likely as the others.

    Args:
        count: how many in a step, S.
        labels: number of labels L.
        rngs: what they are drawn from, the stream "labels" or the default one.

    Raises:
        ValueError: `count` is not positive.
    """

    def __init__(self, count: int, labels: int, *, rngs: nnx.Rngs):
        if count < 1:
            raise ValueError(f"negatives must be at least 1, got {count}")
        self.count, self.labels = count, labels
        self.deterministic = False  # in evaluation nothing is drawn
        self.rngs = rngs["labels"].fork()

    def __call__(self) -> Int[Array, " count"]:
        """The labels of a step, i32 [S]."""
        return jax.random.randint(self.rngs(), (self.count,), 0, self.labels)
