"""The linear probe: measures how well a linear map can classify features."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from jist.models.standardize import Standardize


class LinearProbe(nnx.Module):
    """A linear classifier behind a batch normalisation without an affine part.

    The probe of He et al. (arXiv 2111.06377, Appendix A.1): the normalisation makes features of
    different scales comparable, and being linear adds nothing else. Its deployed statistics are
    set by `jist.calibrate`.

    Args:
        features: width D of the features.
        classes: number of classes C.
        rngs: initialisation of the kernel, normal with deviation 0.01; the bias is zero.
    """

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs):
        self.normalize = Standardize(features, "features")
        self.linear = nnx.Linear(
            features, classes, kernel_init=jax.nn.initializers.normal(0.01), rngs=rngs
        )

    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch classes"]:
        """Logits [B, C] of the features x [B, D]."""
        return self.linear(self.normalize(x))
