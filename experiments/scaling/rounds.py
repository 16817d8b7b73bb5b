"""Rounds of training as the network, the workers and the local steps grow, on one device.

Times stand beside `Strategy.flops_per_step`, the floating-point operations of a worker's matrix
products, which fall with the number of workers as the formula of VLDB 2022, §2.3, says.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from experiments.bench.roofline import MATMUL, matmul
from experiments.scaling.clock import linear_fit, take_turns, timed
from jist import costs
from jist.models import MLP
from jist.strategies import IST, Centralized, Strategy, workers_mesh

INPUTS, CLASSES, BATCH, EXAMPLES = 768, 10, 64, 1024

WIDTHS = (1024, 2048, 4096, 8192, 16384)
WHOLE_STEPS, SUBNET_STEPS = 2, 20  # local steps; whole networks are neither cut nor pasted
# How many times as much is done for a sample, because a GPU can be faster than its commands arrive.
MORE = {"cpu": 1, "gpu": 50}

WORKERS, WORKERS_WIDTH, WORKERS_STEPS = (1, 2, 4, 8, 16, 32), 1024, 20
STEPS, STEPS_WIDTH, STEPS_WORKERS = (1, 2, 5, 10, 20, 50, 100, 200), 1000, 4


def measure_widths(
    repeats: int,
    device: str,
    widths: tuple[int, ...] = WIDTHS,
    product: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Seconds per step of the whole network by one worker, and of the subnets of four.

    Plain SGD, for the memory. `expected_s` are a step's operations at the rate of matrix products
    of the same turns: `product`, side and count, or as many as the roofline takes.
    """
    points, product = [], product or MATMUL[device]
    whole, subnet = (MORE[device] * steps for steps in (WHOLE_STEPS, SUBNET_STEPS))
    for width in widths:
        model = MLP((INPUTS, width, width, CLASSES), rngs=nnx.Rngs(0))
        sgd, mesh = optax.sgd(1e-2), workers_mesh(1)
        strategies: dict[str, Strategy] = {
            "whole, 1 worker": Centralized(model, sgd, local_steps=whole, mesh=mesh),
            "IST, 4 workers": IST(model, sgd, workers=4, local_steps=subnet, mesh=mesh),
        }
        runs = {name: rounds(strategy) for name, strategy in strategies.items()}
        products = matmul("float32", *product)
        samples = take_turns({**runs, "product": products}, repeats, device)
        rate = _rate(*product, samples["product"])
        parameters = costs.count(nnx.state(model, nnx.Param))
        for name, strategy in strategies.items():
            flops = strategy.workers * strategy.flops_per_step(_examples(), BATCH)
            point = {"width": width, "variant": name, "parameters": parameters}
            found = timed(samples[name], strategy.local_steps)
            points.append(point | _beside(found, flops, rate))
    return {"unit": "step of all workers", "batch": BATCH, "optimizer": "sgd", "points": points}


def measure_workers(
    repeats: int,
    device: str,
    workers: tuple[int, ...] = WORKERS,
    width: int = WORKERS_WIDTH,
    steps: int = WORKERS_STEPS,
    product: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Seconds per example for n workers on one device that share the same number of examples.

    `expected_s` are an example's operations at the rate of matrix products, as of `measure_widths`.
    """
    steps, product = MORE[device] * steps, product or MATMUL[device]
    model = MLP((INPUTS, width, width, CLASSES), rngs=nnx.Rngs(0))
    strategies = {
        n: IST(model, optax.adam(1e-3), workers=n, local_steps=steps, mesh=workers_mesh(n, 1))
        for n in workers
    }
    in_a_round = {n: n * steps * BATCH for n in workers}
    total = max(in_a_round.values())
    runs = {n: rounds(s, total // in_a_round[n]) for n, s in strategies.items()}
    samples = take_turns({**runs, 0: matmul("float32", *product)}, repeats, device)
    rate = _rate(*product, samples[0])
    points = []
    for n, strategy in strategies.items():
        flops = strategy.flops_per_step(_examples(), BATCH) / BATCH
        examples = total // in_a_round[n] * in_a_round[n]
        points.append({"workers": n} | _beside(timed(samples[n], examples), flops, rate))
    shape = {"widths": list(model.widths), "batch": BATCH, "local_steps": steps}
    return {"unit": "example", "examples": total, "optimizer": "adam", **shape, "points": points}


def measure_steps(
    repeats: int, device: str, steps: tuple[int, ...] = STEPS, width: int = STEPS_WIDTH
) -> dict[str, Any]:
    """Seconds per local step, and what a round costs beside its steps: cut, exchange and paste."""
    model = MLP((INPUTS, width, width, CLASSES), rngs=nnx.Rngs(0))
    workers, mesh, count = STEPS_WORKERS, workers_mesh(STEPS_WORKERS, 1), MORE[device]
    runs = {
        j: rounds(IST(model, optax.adam(1e-3), workers=workers, local_steps=j, mesh=mesh), count)
        for j in steps
    }
    samples = take_turns(runs, repeats, device)
    points: list[dict[str, Any]] = [
        {"local_steps": j} | timed(samples[j], count * j) for j in steps
    ]
    seconds = [j * p["seconds_per_unit"]["median"] for j, p in zip(steps, points, strict=True)]
    return {
        "unit": "local step of all workers",
        "widths": list(model.widths),
        "workers": workers,
        "batch": BATCH,
        "optimizer": "adam",
        "points": points,
        "round_s": linear_fit(steps, seconds),
    }


def rounds(strategy: Strategy, count: int = 1) -> Callable[[], None]:
    """Trains for so many rounds, from where it stopped, every time it is called."""
    state = strategy.init(0)
    examples = jax.device_put(_examples(), strategy.replicated)
    shape = (strategy.workers, strategy.local_steps, BATCH)
    order = np.random.default_rng(1).integers(0, EXAMPLES, shape, np.int32)

    def work() -> None:
        nonlocal state
        for _ in range(count):
            state, _ = strategy.round(state, examples, order)
        jax.block_until_ready(state)

    return work


def _examples() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "x": generator.standard_normal((EXAMPLES, INPUTS), np.float32),
        "y": generator.integers(0, CLASSES, EXAMPLES, np.int32),
    }


def _rate(side: int, count: int, samples: list[float]) -> float:
    """Operations per second of matrix products, by their median."""
    return 2 * count * side**3 / float(np.median(samples))


def _beside(found: dict[str, Any], flops: float, rate: float) -> dict[str, Any]:
    """What was timed, beside the operations that a unit needs at least."""
    expected = flops / rate
    return found | {
        "flops_per_unit": flops,
        "product_flops_per_s": rate,
        "expected_s": expected,
        "times_expected": found["seconds_per_unit"]["median"] / expected,
    }
