"""Which axis of which parameter lies along which layer of neurons.

A layer says it once, in the metadata of its variables: `neurons=(None, "hidden1")` on a kernel
[inputs, outputs] means that its second axis runs along the neurons of the layer `hidden1`.
Everything else about subnets follows from these names.
"""

from typing import Any

import jax
import optax
from flax import nnx, traverse_util

Axes = tuple[str | None, ...]


def neuron_axes(model: nnx.Module, kind: nnx.filterlib.Filter = nnx.Param) -> Any:
    """The layer of neurons along each axis of each parameter.

    Args:
        model: a module whose variables may carry `neurons` metadata.
        kind: which variables, as an NNX filter; the parameters by default.

    Returns:
        A nested dict like the parameters (`nnx.to_pure_dict`): for every array a tuple with one
        entry an axis, the layer's name or None. Without metadata all entries are None.

    Raises:
        ValueError: a variable's metadata does not have one entry for every axis of its array.
    """

    def axes(path: tuple, variable: nnx.Variable) -> Axes:
        ndim = variable.get_value().ndim
        declared = variable.get_metadata().get("neurons", (None,) * ndim)
        if len(declared) != ndim:
            raise ValueError(
                f"neurons of {'.'.join(map(str, path))} must name one layer or None for each of "
                f"its {ndim} axes, got {declared}"
            )
        return tuple(declared)

    return nnx.to_pure_dict(nnx.map_state(axes, nnx.state(model, kind)))


def statistics_axes(model: nnx.Module, axes: Any) -> Any:
    """The layer of neurons along each axis of the variables that are not parameters.

    A running average, such as those of `nnx.BatchNorm`, that names no neurons lies along those of
    the parameters of its module that have its shape.

    Args:
        model: a module whose variables may carry `neurons` metadata.
        axes: the tree that `neuron_axes` returns for its parameters.

    Returns:
        As `neuron_axes`.

    Raises:
        ValueError: as `neuron_axes`.
    """
    kind = nnx.Not(nnx.Param)
    declared: dict[Any, Any] = traverse_util.flatten_dict(neuron_axes(model, kind))
    named: dict[Any, Any] = traverse_util.flatten_dict(axes)
    shapes, averages = (_shapes(model, kind) for kind in (nnx.Param, nnx.BatchStat))
    for path, shape in averages.items():
        beside = [
            names
            for other, names in named.items()
            if other[:-1] == path[:-1] and shapes[other] == shape and any(names)
        ]
        if beside and not any(declared[path]):
            declared[path] = beside[0]
    return traverse_util.unflatten_dict(declared)


def _shapes(model: nnx.Module, kind: nnx.filterlib.Filter) -> dict[Any, tuple[int, ...]]:
    arrays: dict[Any, Any] = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, kind)))
    return {path: array.shape for path, array in arrays.items()}


def layer_widths(params: Any, axes: Any) -> dict[str, int]:
    """The number of neurons of every named layer.

    Args:
        params: tree of arrays, or of anything with a `shape`.
        axes: the tree that `neuron_axes` returns.

    Returns:
        {layer: width}, sorted by name.

    Raises:
        ValueError: no axis is named, or a name stands for two widths.
    """
    widths: dict[str, int] = {}

    def visit(path: tuple, array: Any, names: Axes) -> None:
        for name, width in zip(names, array.shape, strict=True):
            if name is not None and widths.setdefault(name, width) != width:
                raise ValueError(
                    f"neurons {name!r} must have one width, got {widths[name]} and, in "
                    f"{jax.tree_util.keystr(path, simple=True, separator='.')}, {width}"
                )

    jax.tree_util.tree_map_with_path(visit, params, axes)
    if not widths:
        raise ValueError(
            "the model names no neurons, so there is nothing to partition; declare them with "
            "nnx.with_metadata(init, neurons=(..., 'hidden1'))"
        )
    return dict(sorted(widths.items()))


def optimizer_axes(optimizer: optax.GradientTransformation, params: Any, axes: Any) -> Any:
    """The layers of neurons along the axes of an optimiser's state.

    Args:
        optimizer: any Optax transformation or chain, also of some of the parameters
            (`optax.masked`, `optax.multi_transform`).
        params: the parameters, or their shapes.
        axes: the tree that `neuron_axes` returns.

    Returns:
        A tree like `optimizer.init(params)`: the parameter's axes for every leaf that has the shape
        of a parameter (Adam's moments, momentum), None for every axis of the others (counters).

    Raises:
        ValueError: what it keeps of a parameter has another shape, so it has no known neurons.
    """

    def of_parameter(leaf: Any, param: Any, names: Axes) -> Any:
        if isinstance(leaf, optax.MaskedNode):
            return leaf
        if leaf.shape != param.shape:
            raise ValueError(
                f"optimizer keeps an array of the shape {leaf.shape} of a parameter of the shape "
                f"{param.shape}; to travel with neurons it must have the parameter's shape"
            )
        return names

    return optax.tree_utils.tree_map_params(
        optimizer,
        of_parameter,
        jax.eval_shape(optimizer.init, params),
        params,
        axes,
        transform_non_params=lambda leaf: (None,) * leaf.ndim,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
