"""The compressed-iterate recursion of VLDB 2022, Appendix B, on least squares, and its bound.

What each symbol means, and what the theorem covers: `experiments.convergence`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

NOISE = 0.03  # small beside the solution, so that the mask and not the data sets the neighbourhood


class LeastSquares(NamedTuple):
    """ℓ_i(w) = ½‖A_i w - b_i‖², so that ∇ℓ_i(w) = hessians[i] @ w - offsets[i].

    In float64 and NumPy for the constants, in float32 and JAX for the recursion.
    """

    hessians: Float[Array | np.ndarray, "components d d"]
    offsets: Float[Array | np.ndarray, "components d"]

    def solution(self) -> Float[np.ndarray, " d"]:
        """The global optimum w* of the mean."""
        return np.linalg.solve(self.hessians.mean(0), self.offsets.mean(0))

    def gradient(self, w: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        """∇ℓ(w)."""
        return np.asarray(self.hessians.mean(0) @ w - self.offsets.mean(0))


class Constants(NamedTuple):
    """Constants of Appendix B, valid in the whole space, and two distances of the problem."""

    L_max: float
    mu: float
    M: float
    M_f: float
    B: float
    initial_excess: float
    """ℓ(w[0]) - ℓ(w*)."""
    solution_norm_squared: float
    """‖w*‖²."""

    def alpha(self, omega: float) -> float:
        """α of Theorem 1."""
        return (1 - self.M_f / 2) / (2 * self.L_max) - 5 * omega * self.L_max / (2 * self.mu**2)

    def covers(self, omega: float) -> bool:
        """Whether Theorem 1 speaks of this ω: its printed condition, and a positive α."""
        return omega < self.mu**2 / (10 * self.L_max**2) and self.alpha(omega) > 0

    def neighbourhood(self, omega: float) -> float:
        """What remains of the bound of Theorem 1 after infinitely many steps; B Q is zero."""
        mask = 5 * self.L_max * omega / 2 * self.solution_norm_squared
        return (mask + self.M / (4 * self.L_max)) / self.alpha(omega)

    def bound(self, omega: float, steps: np.ndarray) -> Float[np.ndarray, " steps"]:
        """The bound of Theorem 1 after each number of steps T."""
        decay = self.initial_excess / (self.alpha(omega) * (steps + 1))
        return decay + self.neighbourhood(omega)


def make_problem(generator: np.random.Generator, dimension: int, components: int) -> LeastSquares:
    """Draws A_i with squared singular values between 1 and 1.2, and b_i = A_i w + noise.

    One component per data point would make L_max / μ of the order of the dimension, and the theorem
    would then cover hardly any mask.
    """
    factors = generator.normal(size=(2, components, dimension, dimension))
    left, right = np.linalg.qr(factors).Q
    singular = np.sqrt(generator.uniform(1, 1.2, (components, 1, dimension)))
    matrices = (left * singular) @ right
    targets = matrices @ generator.normal(size=dimension)
    targets += NOISE * generator.normal(size=targets.shape)
    transposed = matrices.transpose(0, 2, 1)
    return LeastSquares(transposed @ matrices, (transposed @ targets[..., None])[..., 0])


def constants(problem: LeastSquares, start: Float[np.ndarray, " d"]) -> Constants:
    """Computes the constants of Appendix B from the components, without sampling.

    With u = w - w*, E‖∇ℓ_i‖² is the quadratic u'Pu + 2q'u + s and ‖∇ℓ‖² is u'H²u. Their difference
    E‖∇ℓ_i‖² - M_f‖∇ℓ‖² has a maximum, M, once M_f exceeds the largest eigenvalue of H⁻¹PH⁻¹.
    M_f takes twice the least excess over one, so that M stays near s.
    """
    hessians, offsets = problem
    mean, solution = hessians.mean(0), problem.solution()
    residuals = hessians @ solution - offsets
    P = (hessians @ hessians).mean(0)
    q = np.einsum("nij,nj->i", hessians, residuals) / len(hessians)
    inverse = np.linalg.inv(mean)
    M_f = 1 + 2 * (np.linalg.eigvalsh(inverse @ P @ inverse).max() - 1)
    distance = start - solution
    return Constants(
        L_max=float(np.linalg.eigvalsh(hessians).max()),
        mu=float(np.linalg.eigvalsh(mean).min()),
        M=float((residuals**2).sum(1).mean() + q @ np.linalg.solve(M_f * mean @ mean - P, q)),
        M_f=float(M_f),
        B=0.0,
        initial_excess=float(distance @ mean @ distance / 2),
        solution_norm_squared=float(solution @ solution),
    )


def draw(
    key: PRNGKeyArray,
    step: Int[Array, ""],
    keep_probability: Float[Array, ""],
    problem: LeastSquares,
) -> tuple[Bool[Array, " d"], Int[Array, ""]]:
    """The coordinates that are kept in a step, and the component i_t of its gradient.

    The same key gives nested masks for growing keep probabilities.
    """
    mask_key, component_key = jax.random.split(jax.random.fold_in(key, step))
    components, dimension = problem.offsets.shape
    kept = jax.random.bernoulli(mask_key, keep_probability, (dimension,))
    return kept, jax.random.randint(component_key, (), 0, components)


@jax.jit
def gradient_norms(
    problem: LeastSquares,
    start: Float[Array, " d"],
    learning_rate: Float[Array, ""],
    keep_probabilities: Float[Array, " probabilities"],
    keys: PRNGKeyArray,
    steps: Int[Array, " steps"],
) -> Float[Array, "probabilities seeds steps"]:
    """‖∇ℓ(w[t])‖² before each step, for every keep probability and every seed."""
    mean_hessian, mean_offset = problem.hessians.mean(0), problem.offsets.mean(0)

    def one_run(keep_probability, key):
        def one_step(w, step):
            kept, component = draw(key, step, keep_probability, problem)
            z = jnp.where(kept, w / keep_probability, 0)
            gradient = problem.hessians[component] @ z - problem.offsets[component]
            norm = jnp.sum((mean_hessian @ w - mean_offset) ** 2)
            return z - learning_rate * gradient, norm

        return jax.lax.scan(one_step, start, steps)[1]

    over_seeds = jax.vmap(one_run, (None, 0))
    return jax.vmap(over_seeds, (0, None))(keep_probabilities, keys)
