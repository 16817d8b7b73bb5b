"""What a subnetwork lacks of a layer, reconstructed by least squares from what it has.

A layer of neurons is read by a linear map, a W + b. A subnetwork has some of them, with activations
x and their rows of W. While it is fitted, its rows and its bias are changed so that over some
examples x (W + K) + b + c is nearest to what the full network's map gives,

    K = (C_xx + λ)⁻¹ C_xr,    c = E[r] - E[x] K,

where C are covariances and r what is missing of the full network's outputs. λ is the mean variance
of x times its length over the number of rows: what few rows say is trusted less. Layers are fitted
one after the other, so a layer makes up for what those before it could not. He, Zhang, Sun (Channel
Pruning for Accelerating Very Deep Neural Networks, ICCV 2017) reconstruct so what they prune.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jist.models.primitives import linear

PHASES = ("use", "record", "fit")
ITERATIONS = 30  # of conjugate gradients: products alone, which every device computes fast


class Fitted(nnx.Module):
    """What is fitted to the full network when a round begins.

    Attributes:
        phase: "use", linear maps are applied as they are; "record", what they make is kept; or
            "fit", they are first changed, in place, so that this is nearest to what was kept.
            `model.set_attributes(phase=...)` sets it.
        wanted: what was kept, or None.
    """

    def __init__(self):
        self.phase = "use"
        self.wanted: Any = nnx.data(None)


class Reconstruct(Fitted):
    """Stands between a layer of neurons and the linear map that reads it."""

    def __call__(
        self, reader: nnx.Linear, x: Float[Array, "*rows inputs"]
    ) -> Float[Array, "*rows outputs"]:
        """The outputs of the map, which has a bias."""
        if self.phase == "fit":
            assert self.wanted is not None
            fit(reader, x, self.wanted)
        y = linear(reader, x)
        if self.phase == "record":
            self.wanted = y
        return y


def fit(
    reader: nnx.Linear,
    x: Float[Array, "*rows inputs"],
    wanted: Float[Array, "*rows outputs"],
) -> None:
    """Changes a linear map, in place, so that what it makes of x is nearest to what is wanted.

    Inputs that never differ, as those of padding, leave their rows of the kernel as they are.
    """
    assert reader.bias is not None
    x = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    missing = wanted.reshape(len(x), -1).astype(jnp.float32) - x @ reader.kernel - reader.bias
    means = jnp.mean(x, axis=0), jnp.mean(missing, axis=0)
    x, missing = x - means[0], missing - means[1]
    change = solve(ridged(x.T @ x / len(x), len(x)), x.T @ missing / len(x))
    reader.kernel[...] = reader.kernel + change
    reader.bias[...] = reader.bias + means[1] - means[0] @ change


def ridged(covariance: Float[Array, "n n"], rows: int) -> Float[Array, "n n"]:
    """A covariance and λ, as above; where an input never differs, 1."""
    variance = jnp.diag(covariance)
    return covariance + jnp.diag(jnp.where(variance > 0, jnp.sum(variance) / rows, 1))


def solve(
    matrix: Float[Array, "n n"], wanted: Float[Array, "n outputs"]
) -> Float[Array, "n outputs"]:
    """The solution of `matrix @ x = wanted` by conjugate gradients, every output by itself.

    Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems (1952), stopped
    after `ITERATIONS`. The matrix is symmetric and positive definite.
    """

    def step(state: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        x, residual, direction, size = state
        image = matrix @ direction
        length = _over(size, jnp.sum(direction * image, axis=0))
        x, residual = x + length * direction, residual - length * image
        new = jnp.sum(residual**2, axis=0)
        return (x, residual, residual + _over(new, size) * direction, new), None

    start = jnp.zeros_like(wanted), wanted, wanted, jnp.sum(wanted**2, axis=0)
    (x, *_), _ = jax.lax.scan(step, start, None, length=ITERATIONS)
    return x


def _over(a: Array, b: Array) -> Array:
    """The quotient; 0 where an output is exact, and nothing is left to divide by."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
