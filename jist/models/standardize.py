"""Correcting the shift between a subnetwork and the full network.

Yuan et al., Distributed Learning of Fully Connected Neural Networks using Independent Subnet
Training (VLDB 2022). In training a neuron receives only the inputs that are in its subnetwork; in
the deployed full network it receives all. §2.2 corrects this by standardising the pre-activations,
Appendix A by scaling the activations up.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-5


class Statistic(nnx.Variable):
    """A per-neuron value that is measured or fixed, never trained."""


class Standardize(nnx.Module):
    """(z - mean) / sqrt(var + 1e-5) for every neuron: biased variance, no affine part (§2.2).

    In training mode (`model.train()`) the statistics are those of the batch, and are remembered as
    the deployed ones; in evaluation mode (`model.eval()`) the deployed ones are used.

    Args:
        width: number of neurons.
        neurons: the name of their layer.
    """

    def __init__(self, width: int, neurons: str):
        self.mean = Statistic(jnp.zeros(width), neurons=(neurons,))
        self.var = Statistic(jnp.ones(width), neurons=(neurons,))
        self.use_running_average = False

    def __call__(self, z: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
        """The standardised pre-activations; ValueError for a batch of one in training mode."""
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            if len(z) < 2:
                raise ValueError(
                    "standardisation in training needs a batch of at least 2 examples, "
                    f"got {len(z)}; use a larger batch or model.eval()"
                )
            mean, var = jnp.mean(z, axis=0), jnp.var(z, axis=0)
            self.mean[...], self.var[...] = mean, var
        return (z - mean) * jax.lax.rsqrt(var + EPSILON)


class Scale(nnx.Module):
    """Scales the activations of a subnetwork up, so that its sums estimate the full network's.

    A worker that holds k of a layer's N neurons multiplies their activations by N / k, which is n
    for an equal partition: the expectation, over the partitions, of the sum over its k neurons is
    then the full sum. (Appendix A prints n²; its derivation drops the sum over the n sites, one
    factor of n.) The full network is scaled by 1.

    Args:
        width: number of neurons N.
        neurons: the name of their layer.
    """

    def __init__(self, width: int, neurons: str):
        self.width = width
        # A subnetwork's part of this is 1 for each of its neurons and 0 for padding.
        self.present = Statistic(jnp.ones(width), neurons=(neurons,))

    def __call__(self, x: Float[Array, "*rows numbers"]) -> Float[Array, "*rows numbers"]:
        """The scaled activations, one number or several of every neuron that is there."""
        # A worker without any neuron has nothing to scale, but must not divide by zero.
        return x * (self.width / jnp.maximum(jnp.sum(self.present[...]), 1)).astype(x.dtype)


@nnx.jit
def _forward(model: nnx.Module, x: Any) -> None:
    model(x)  # type: ignore[operator]  # any module that takes a batch


def calibrate(model: nnx.Module, x: Any) -> None:
    """Measures every neuron's deployed mean and variance, in place (VLDB 2022, §2.2).

    One pass of the full network over `x`, in which every `Standardize` and every `nnx.BatchNorm`
    takes the statistics of this batch and keeps them as the deployed ones. Dropout is off, as it
    is when the network is used. The model is in evaluation mode afterwards; nothing else of it
    changes.

    Args:
        model: the full network.
        x: what the model is called with for training examples, [B, ...] or a tree of such arrays,
            B ≥ 2, drawn at random: the first rows of a data set that is sorted by class give wrong
            statistics.

    Raises:
        ValueError: fewer than two examples, or running averages of a module that is neither.
    """
    examples = len(jax.tree.leaves(x)[0])
    if examples < 2:
        raise ValueError(f"x must hold at least 2 examples, got {examples}")
    modules = [module for _, module in nnx.iter_modules(model)]
    norms = [module for module in modules if isinstance(module, nnx.BatchNorm)]
    _check_averages(model, norms)
    model.eval()
    if not norms and not any(isinstance(module, Standardize) for module in modules):
        return
    model.set_attributes(use_running_average=False, raise_if_not_found=False)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # its average is then the batch's
    _forward(model, x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _check_averages(model: nnx.Module, norms: list[nnx.BatchNorm]) -> None:
    known = {id(variable) for norm in norms for variable in (norm.mean, norm.var)}
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.BatchStat) and id(variable) not in known:
            raise ValueError(
                f"the running average {'.'.join(map(str, path))} belongs to no nnx.BatchNorm, so "
                "its deployed value cannot be measured; use nnx.BatchNorm or jist.models' "
                "Standardize"
            )
