"""What the benchmarks of heads share: the network and its examples."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import optax
from flax import nnx

from experiments.bench import rounds
from experiments.bench.rounds import Arrays
from jist.models import MLP

OPTIMIZERS = {"adam": optax.adam(1e-3), "sgd": optax.sgd(1e-2)}


@dataclasses.dataclass(frozen=True)
class Work(rounds.Work):
    """The network, whose hidden layers are standardised, on features x [N, D], f32.

    Attributes:
        optimizer: "adam" with a learning rate of 1e-3, or "sgd" with 1e-2.
    """

    model: MLP
    optimizer: str

    @property
    def name(self) -> str:
        """The sizes of its layers."""
        return "-".join(map(str, self.model.widths))

    def arrays(self, params: Any) -> Arrays:
        """As `arrays`."""
        return arrays(params)


def make_work(widths: Sequence[int], *, optimizer: str, batch: int, examples: int) -> Work:
    """A network of these layer sizes, and noisy examples around a centre for every class."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((widths[-1], widths[0]), np.float32)
    y = generator.integers(0, widths[-1], examples).astype(np.int32)
    x = centres[y] + 3 * generator.standard_normal((examples, widths[0]), np.float32)
    model = MLP(tuple(widths), norm="standardize", rngs=nnx.Rngs(0))
    return Work(model, batch, x, y, optimizer)


def arrays(params: Any) -> Arrays:
    """The arrays of an `MLP` with `norm="standardize"`; on a CPU where they lie, not copied.

    The kernels [in, out] of all layers, then the bias of the last.
    """
    layers = [params["layers"][i] for i in range(len(params["layers"]))]
    return [np.asarray(value) for value in (*(x["kernel"] for x in layers), layers[-1]["bias"])]
