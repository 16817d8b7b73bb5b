"""Theorem 1 of independent subnet training, measured on least squares.

    python -m experiments.convergence

Runs the compressed-iterate recursion of Yuan et al. (VLDB 2022, Appendix B),

    w[t+1] = z[t] - η ∇ℓ_i(z[t]),  z[t] = M(w[t]),  η = 1 / (2 L_max),

where M keeps each coordinate with probability ξ, divides it by ξ and zeroes the others, on
ℓ(w) = mean of ℓ_i(w) = ½‖A_i w - b_i‖² over 64 components in 20 dimensions, and sets the mean over
256 seeds of ‖∇ℓ(w[T])‖² beside the theorem's bound. Ends with a table, `convergence.png` and
`convergence.json`. Expected on 2 CPU cores: 10 seconds.

Expected result: the mean lies under the bound at every T, and so does its minimum over t <= T. It
falls geometrically within 15 steps, which O(1/T) permits, and settles where ξ decides:

    ξ           0.5    0.95   0.97   0.99   0.999   1
    settles at  24.2   0.766  0.448  0.149  0.0200  0.00584
    bound       none   60.3   20.3   4.71   0.433   0.0199    (T → ∞)

The bound is Theorem 1, not Corollary 1. Its constants are computed from the A_i and b_i and hold in
the whole space, not only where the recursion went. ∇ℓ_i is affine and M unbiased, so the gradient
error of Assumption 5 is zero: B = 0 (and θ = 0 in Assumption 6). The paper prints no proof; here it
is the descent lemma with E‖z - w‖² = ω‖w‖² and ‖w‖² <= 2‖w - w*‖² + 2‖w*‖².

What the theorem does and does not say:

- Assumption 2 fails: no function with the error bound is Lipschitz in the whole space. Q enters
  only as B Q, which is zero here; Q over the points visited is reported.
- ω = (1 - ξ)/ξ < μ²/(10 L_max²) needs ξ > 10/11 for every function, since μ <= L_max. Subnet
  training on n workers keeps a neuron with ξ = 1/n, at most a half: never covered. ξ = 0.5 is run
  without a bound; it settles too, little below the ‖∇ℓ(0)‖² = 34.1 of a model of zeros.
- Assumption 4 in the whole space needs M_f >= 1, as E‖∇ℓ_i‖² >= ‖∇ℓ‖². The printed condition on ω
  guarantees α > 0 only for M_f <= 1; beyond, ω < μ²(2 - M_f)/(10 L_max²), checked here as well.
- Near the limit of ω the bound is vacuous: above ‖∇ℓ(0)‖², which w = 0 attains without training.
  So it is here for ξ = 0.95; the table marks it.
- Corollary 1 is always vacuous: its α is positive only for M_f < 1, Assumption 4 then gives
  ‖∇ℓ‖² <= M/(1 - M_f) wherever it holds, and the corollary's bound is at least as large, because
  α <= (1 - M_f)/(4 L_max). Its printed condition on ω also has the factor (½ - θ - M_f/2) in the
  denominator, where a positive α needs it in the numerator.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.convergence.compressed_iterates import (
    Constants,
    constants,
    gradient_norms,
    make_problem,
)
from experiments.figures import png
from experiments.runs.directory import write_json

DIMENSION = 20
COMPONENTS = 64
START = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvergenceOptions(Options):
    """Options of the convergence experiment; none is needed."""

    run_dir: pathlib.Path = pathlib.Path("runs/convergence")
    """Where plot and results are written; replaced if there."""
    keep_probabilities: tuple[float, ...] = (0.5, 0.95, 0.97, 0.99, 0.999, 1.0)
    """Probabilities ξ of keeping a coordinate."""
    steps: int = 5_000
    """Steps T of the recursion."""
    seeds: int = 256
    """Independent runs that the expectation is the mean of."""
    seed: int = 0
    """Decides the problem, the start, the masks and the order."""

    def __post_init__(self):
        """Refuses options for which the recursion is not defined."""
        for keep_probability in self.keep_probabilities:
            if not 0 < keep_probability <= 1:
                raise UsageError(f"keep_probabilities must lie in (0, 1], got {keep_probability}")
        if not self.keep_probabilities:
            raise UsageError("keep_probabilities must name at least one probability, got none")
        for name in ("steps", "seeds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


def measure(options: ConvergenceOptions) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Runs the recursion and sets each curve beside its bound.

    Returns:
        The constants of the problem, and one result per keep probability as `compare` makes it.
    """
    generator = np.random.default_rng(options.seed)
    problem = make_problem(generator, DIMENSION, COMPONENTS)
    start = START * generator.normal(size=DIMENSION)
    known = constants(problem, start)
    norms = gradient_norms(
        jax.tree.map(jnp.float32, problem),
        jnp.float32(start),
        jnp.float32(1 / (2 * known.L_max)),
        jnp.float32(options.keep_probabilities),
        jax.random.split(jax.random.key(options.seed), options.seeds),
        jnp.arange(options.steps + 1),
    )
    norms = np.asarray(norms)
    at_zero = float(np.sum(problem.gradient(np.zeros(DIMENSION)) ** 2))
    results = [
        compare(keep_probability, curve.mean(0, np.float64), known, at_zero)
        for keep_probability, curve in zip(options.keep_probabilities, norms, strict=True)
    ]
    visited = {"Q_over_visited": float(np.sqrt(norms.max())), "squared_norm_at_zero": at_zero}
    return known._asdict() | visited, results


def compare(
    keep_probability: float, mean: Float[np.ndarray, " steps"], known: Constants, at_zero: float
) -> dict[str, Any]:
    """Sets the mean over seeds of ‖∇ℓ(w[T])‖², for T = 0, 1, ..., beside the bound.

    The theorem bounds the minimum over t <= T. The least of many noisy means lies below the least
    expectation, so that the test is whether the mean itself, at every T, lies under the bound.
    """
    omega = (1 - keep_probability) / keep_probability
    covered = known.covers(omega)
    steps = np.arange(len(mean))
    bound = known.bound(omega, steps) if covered else None
    shown = np.unique(np.geomspace(1, len(mean), 200).astype(int)) - 1
    return {
        "keep_probability": keep_probability,
        "omega": omega,
        "alpha": known.alpha(omega),
        "covered": covered,
        "neighbourhood": float(mean[len(mean) // 2 :].mean()),
        "neighbourhood_bound": known.neighbourhood(omega) if covered else None,
        "holds": None if bound is None else bool((mean <= bound).all()),
        "vacuous": None if bound is None else known.neighbourhood(omega) >= at_zero,
        "T": shown.tolist(),
        "mean": mean[shown].tolist(),
        "lowest": np.minimum.accumulate(mean)[shown].tolist(),
        "bound": None if bound is None else bound[shown].tolist(),
    }


def plot(results: list[dict[str, Any]], at_zero: float, path: pathlib.Path) -> None:
    """Measured curves and bounds over the number of steps, both axes logarithmic.

    Args:
        results: as `measure` returns them.
        at_zero: ‖∇ℓ(0)‖², above which a bound is vacuous.
        path: the PNG; replaced whole.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    handles = []
    for position, result in enumerate(results):
        colour = f"C{position}"
        past = np.add(result["T"], 1)
        axes.plot(past, result["mean"], color=colour)
        if result["bound"]:
            axes.plot(past, result["bound"], color=colour, linestyle="--")
        note = "" if result["covered"] else ", not covered"
        label = f"ξ = {result['keep_probability']:g}{note}"
        handles.append(Line2D([], [], color=colour, label=label))
    axes.axhline(at_zero, color="black", linestyle=":", linewidth=1)
    handles += [
        Line2D([], [], color="grey", label="mean over seeds of ‖∇ℓ(w[T])‖²"),
        Line2D([], [], color="grey", linestyle="--", label="bound of Theorem 1"),
        Line2D(
            [],
            [],
            color="black",
            linestyle=":",
            linewidth=1,
            label="‖∇ℓ(0)‖²: bounds above are vacuous",
        ),
    ]
    axes.set(xscale="log", yscale="log", xlabel="T + 1", ylabel="squared gradient norm")
    axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    png.write(figure, path)


def print_table(results: list[dict[str, Any]]) -> None:
    """Prints one row per keep probability."""
    table = Table(title="Squared gradient norm, and Theorem 1", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("ξ", "ω", "lowest", "bound", "settles\nat", "bound\nfor T → ∞"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("the theorem", no_wrap=True)
    for result in results:
        verdict = "not covered"
        if result["covered"]:
            verdict = "holds" if result["holds"] else "VIOLATED"
            verdict += ", but vacuous" if result["vacuous"] else ""
        table.add_row(
            f"{result['keep_probability']:g}",
            f"{result['omega']:.4f}",
            f"{result['lowest'][-1]:.3g}",
            f"{result['bound'][-1]:.3g}" if result["covered"] else "-",
            f"{result['neighbourhood']:.3g}",
            f"{result['neighbourhood_bound']:.3g}" if result["covered"] else "-",
            verdict,
        )
    Console().print(table)


def main(options: ConvergenceOptions) -> None:
    """Measures, compares, draws and writes."""
    known, results = measure(options)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    print("  ".join(f"{name} {value:.4g}" for name, value in known.items()))
    print_table(results)
    plot(results, known["squared_norm_at_zero"], options.run_dir / "convergence.png")
    record = {
        "theorem": "Theorem 1 of Yuan et al. 2022",
        "steps": options.steps,
        "seeds": options.seeds,
    }
    record |= {"seed": options.seed, "constants": known, "results": results}
    write_json(options.run_dir / "convergence.json", record)
    print(f"written: {options.run_dir}/convergence.json, {options.run_dir}/convergence.png")


if __name__ == "__main__":
    run(main, ConvergenceOptions, __doc__ or "")
