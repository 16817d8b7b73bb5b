"""Whether a model can be cut along the neurons that it names, said before anything is trained."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from jist.ist.neurons import Axes, layer_of, layer_widths, neuron_axes, statistics_axes
from jist.ist.subnet import subnet_shapes

# Widths that no other axis of a model is likely to have: what does not fit is then seen.
_ODD_WIDTHS = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069)


def check(model: nnx.Module, loss: Callable[[nnx.Module, Any], Any], batch: Any) -> None:
    """Traces the loss of a subnetwork in which every layer has a width of its own.

    Nothing is computed. A parameter that names no neurons where it should, or other neurons than
    the parameters that it meets, has an axis that does not fit; with parts of equal width it might
    train without a word.

    Args:
        model: names the neurons of its layers.
        loss: maps a model and a batch to a scalar.
        batch: tree of arrays, or of their shapes, with a leading axis of examples.

    Raises:
        ValueError: the loss cannot be traced on a subnetwork. It says along which neurons, which
            parameters name them, and which have an axis of that width and do not.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    trees = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    named = neuron_axes(model)
    axes = named, statistics_axes(model, named)
    widths = layer_widths(trees, axes)

    def failure(narrow: Mapping[str, int]) -> str | None:
        shapes = subnet_shapes(trees, axes, {**widths, **narrow})
        try:
            jax.eval_shape(lambda p, r, b: loss(nnx.merge(graphdef, p, r), b), *shapes, batch)
        except (TypeError, ValueError) as error:
            return next((line for line in str(error).splitlines() if line.strip()), repr(error))
        return None

    narrow = dict(zip(widths, itertools.cycle(_ODD_WIDTHS), strict=False))
    reason = failure(narrow)
    if reason is None:
        return
    if failure({}) is not None:  # it fails on the full network too: not a matter of neurons
        jax.eval_shape(lambda p, r, b: loss(nnx.merge(graphdef, p, r), b), *trees, batch)
    for layer, width in widths.items():
        alone = failure({layer: narrow[layer]})
        if alone is not None:
            raise ValueError(_described(layer, width, trees[0], axes[0], alone))
    raise ValueError(f"the model cannot be cut along the neurons {sorted(widths)}: {reason}")


def _described(layer: str, width: int, params: Any, axes: Any, reason: str) -> str:
    own, others = [], []

    def visit(path: tuple, array: Any, names: Axes) -> None:
        where = jax.tree_util.keystr(path, simple=True, separator=".")
        for number, (size, axis) in enumerate(zip(array.shape, names, strict=True)):
            if layer_of(axis) == layer:
                own.append(f"{where} along axis {number}")
            elif size == width:
                says = "no neurons" if axis is None else repr(layer_of(axis))
                others.append(f"{where} along axis {number} ({says})")

    jax.tree_util.tree_map_with_path(visit, params, axes)
    found = f"; of the same width, and not of these neurons: {', '.join(others)}" if others else ""
    return (
        f"the model cannot be cut along the neurons {layer!r}, which {', '.join(own)} name"
        f"{'s' if len(own) == 1 else ''}{found} ({reason})"
    )
