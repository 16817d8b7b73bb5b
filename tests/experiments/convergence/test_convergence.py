"""The compressed-iterate recursion against NumPy, and its bound against exact expectations."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.convergence import __main__ as convergence
from experiments.convergence import compressed_iterates
from experiments.convergence.__main__ import ConvergenceOptions
from experiments.convergence.compressed_iterates import Constants, LeastSquares

DIMENSION, COMPONENTS = 6, 8
KEEP_PROBABILITIES = (0.5, 0.95, 0.99, 1.0)
STEPS = 25


@pytest.fixture(scope="module")
def problem() -> LeastSquares:
    return compressed_iterates.make_problem(np.random.default_rng(3), DIMENSION, COMPONENTS)


@pytest.fixture(scope="module")
def start():
    return 3 * np.random.default_rng(4).normal(size=DIMENSION)


@pytest.fixture(scope="module")
def known(problem, start) -> Constants:
    return compressed_iterates.constants(problem, start)


@pytest.fixture(scope="module")
def keys():
    # so many because a rare mask that drops the largest coordinate weighs heavily in the mean
    return jax.random.split(jax.random.key(1), 20_000)


@pytest.fixture(scope="module")
def norms(problem, start, known, keys):
    measured = compressed_iterates.gradient_norms(
        jax.tree.map(jnp.float32, problem),
        jnp.float32(start),
        jnp.float32(1 / (2 * known.L_max)),
        jnp.float32(KEEP_PROBABILITIES),
        keys,
        jnp.arange(STEPS + 1),
    )
    return np.asarray(measured, np.float64)


def exact_expectation(problem, start, learning_rate, keep_probability, steps):
    """E‖∇ℓ(w[t])‖² without sampling: the first two moments of w obey a linear recursion."""
    omega = (1 - keep_probability) / keep_probability
    H, h = problem.hessians.mean(0), problem.offsets.mean(0)
    contraction = np.eye(len(start)) - learning_rate * problem.hessians
    shift = learning_rate * problem.offsets
    mean, second = start, np.outer(start, start)
    norms = []
    for _ in range(steps + 1):
        norms.append(np.trace(H @ second @ H) - 2 * h @ H @ mean + h @ h)
        masked = second + omega * np.diag(np.diag(second))
        moved = contraction @ mean
        cross = moved[:, :, None] * shift[:, None, :]
        second = contraction @ masked @ contraction.transpose(0, 2, 1)
        second = second + cross + cross.transpose(0, 2, 1) + shift[:, :, None] * shift[:, None, :]
        mean, second = (moved + shift).mean(0), second.mean(0)
    return np.array(norms)


@pytest.mark.parametrize("position", range(len(KEEP_PROBABILITIES)))
def test_recursion_equals_numpy_with_the_same_masks(problem, start, known, keys, norms, position):
    keep_probability = KEEP_PROBABILITIES[position]
    seed, w, expected = 7, start, []
    for step in range(STEPS + 1):
        kept, component = compressed_iterates.draw(
            keys[seed], jnp.int32(step), jnp.float32(keep_probability), problem
        )
        gradients = [
            hessian @ w - offset
            for hessian, offset in zip(problem.hessians, problem.offsets, strict=True)
        ]
        expected.append(np.linalg.norm(np.mean(gradients, 0)) ** 2)
        z = np.where(np.asarray(kept), w / keep_probability, 0)
        i = int(component)
        w = z - (problem.hessians[i] @ z - problem.offsets[i]) / (2 * known.L_max)

    np.testing.assert_allclose(norms[position, seed], expected, rtol=1e-4, atol=1e-6)


def test_mean_over_seeds_is_the_expectation(problem, start, known, norms):
    # also a test of the masks' and the components' distribution
    error = norms.std(1) / np.sqrt(norms.shape[1])
    for position, keep_probability in enumerate(KEEP_PROBABILITIES):
        exact = exact_expectation(problem, start, 1 / (2 * known.L_max), keep_probability, STEPS)
        difference = np.abs(norms[position].mean(0) - exact)
        assert (difference <= 5 * error[position] + 1e-4 * exact).all()


def test_exact_expectation_lies_under_the_bound_and_shrinks(problem, start, known):
    steps = np.arange(301)
    settled = []
    for keep_probability in KEEP_PROBABILITIES:
        omega = (1 - keep_probability) / keep_probability
        exact = exact_expectation(problem, start, 1 / (2 * known.L_max), keep_probability, 300)
        settled.append(exact[-1])
        assert known.covers(omega) == (keep_probability > 0.9)
        if known.covers(omega):
            assert (exact <= known.bound(omega, steps)).all()
    assert settled == sorted(settled, reverse=True)
    assert settled[0] > 10 * settled[1]


def test_bound_is_the_printed_formula(known):
    # Theorem 1 as printed, with every constant different
    c = Constants(
        L_max=3.0, mu=2.0, M=0.7, M_f=1.1, B=0, initial_excess=5, solution_norm_squared=11
    )
    omega, T = 0.01, 9
    alpha = 1 / (2 * 3) * (1 - 1.1 / 2) - 5 * omega * 3 / (2 * 2**2)
    printed = 5 / (alpha * (T + 1)) + 1 / alpha * (5 * 3 * omega / 2 * 11 + 0.7 / (4 * 3))
    assert c.bound(omega, np.array([T])) == pytest.approx([printed])
    assert not c.covers(2**2 / (10 * 3**2))  # the condition on ω is strict
    assert not known._replace(M_f=1.9).covers(0.05)  # α is negative though the condition holds


def test_constants_hold_everywhere_and_are_tight(problem, start, known):
    solution = problem.solution()
    generator = np.random.default_rng(0)
    gaps, ratios = [], []
    for scale in np.geomspace(1e-3, 1e3, 200):
        w = solution + scale * generator.normal(size=DIMENSION)
        gradients = np.einsum("nij,j->ni", problem.hessians, w) - problem.offsets
        full = np.linalg.norm(gradients.mean(0))
        gaps.append(known.M + known.M_f * full**2 - (gradients**2).sum(1).mean())
        ratios.append(full / np.linalg.norm(w - solution))
    assert min(gaps) >= -1e-9 * known.M  # Assumption 4
    assert min(gaps) < 0.5 * known.M
    assert min(ratios) >= known.mu * (1 - 1e-9)  # Assumption 3
    assert known.L_max == pytest.approx(max(np.linalg.norm(H, 2) for H in problem.hessians))
    np.testing.assert_allclose(problem.gradient(solution), 0, atol=1e-10)
    assert 1 <= known.M_f < 1.1


def test_gradient_error_is_zero_over_all_masks(problem, start):
    keep_probability = 0.7
    expectation = np.zeros(DIMENSION)
    for mask in itertools.product((0, 1), repeat=DIMENSION):
        probability = np.prod(np.where(mask, keep_probability, 1 - keep_probability))
        expectation += probability * problem.gradient(np.array(mask) * start / keep_probability)
    np.testing.assert_allclose(expectation, problem.gradient(start), rtol=1e-10)


def test_script_writes_plot_and_results(tmp_path, capsys):
    options = ConvergenceOptions(run_dir=tmp_path / "c", steps=120, seeds=32)
    convergence.main(options)
    out = capsys.readouterr().out
    assert "VIOLATED" not in out
    assert "not covered" in out
    assert (tmp_path / "c" / "convergence.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((tmp_path / "c" / "convergence.json").read_text())["results"]
    settled = [result["neighbourhood"] for result in results]
    assert settled == sorted(settled, reverse=True)
    assert [result["holds"] for result in results] == [None, True, True, True, True, True]
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "convergence.png",
        "convergence.json",
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep_probabilities": (0.5, 0.0)}, "keep_probabilities must lie in"),
        ({"keep_probabilities": (1.1,)}, "keep_probabilities must lie in"),
        ({"keep_probabilities": ()}, "at least one probability"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        ConvergenceOptions(**wrong)
