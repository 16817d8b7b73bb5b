"""Mixtures of two images, and of their classes, as training examples.

Zhang et al., mixup: Beyond Empirical Risk Minimization (arXiv 1710.09412), §2:
x = share x_i + (1 - share) x_j and y = share y_i + (1 - share) y_j, with share ~ Beta(alpha, alpha)
drawn for a batch, whose images are mixed with those of a random order of the same batch.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped


class Mixture(NamedTuple):
    """What the examples of a batch are mixed with.

    Attributes:
        share: of an example itself, in [0, 1].
        partner: the example that has the rest [B].
    """

    share: Float[Array, ""]
    partner: Int[Array, " batch"]


def draw_mixture(key: PRNGKeyArray, batch: int, alpha: float) -> Mixture:
    """A mixture for a batch of B examples.

    Args:
        key: decides share and partners.
        batch: number of examples B.
        alpha: of the Beta distribution, above 0: 1 is uniform, near 0 hardly anything is mixed.
    """
    of_share, of_partner = jax.random.split(key)
    share = jax.random.beta(of_share, alpha, alpha)
    return Mixture(share, jax.random.permutation(of_partner, batch))


def mixed(values: Shaped[Array, "batch ..."], mixture: Mixture) -> Float[Array, "batch ..."]:
    """Images or targets [B, ...], mixed."""
    return mixture.share * values + (1 - mixture.share) * values[mixture.partner]
