"""Which axis of which parameter lies along which layer of neurons.

A layer says it once, in the metadata of its variables: `neurons=(None, "hidden1")` on a kernel
[inputs, outputs] means that its second axis runs along the neurons of the layer `hidden1`.
Everything else about subnetworks follows from these names.

An axis that holds more than one number of each neuron says how it is made up, in the order of
`reshape`: `("heads", 64)` is 64 numbers of every head; `(3, "heads", 64)` the same of fused
queries, keys and values; `(49, "channels")` is what flattening maps of 7 × 7 pixels, channels last,
makes of it.

A name that ends in `?`, `"blocks?"`, is of neurons that a residual connection passes by; a worker
may have none of them (`jist.ist.partition`).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import nnx, traverse_util

Axis = str | tuple[str | int, ...] | None
Axes = tuple[Axis, ...]
Plain = tuple[str | None, ...]  # of an array whose axes were unfolded


def neuron_axes(model: nnx.Module, kind: nnx.filterlib.Filter = nnx.Param) -> Any:
    """The layer of neurons along each axis of each parameter.

    Args:
        model: a module whose variables may carry `neurons` metadata.
        kind: which variables, as an NNX filter; the parameters by default.

    Returns:
        A nested dict like the parameters (`nnx.to_pure_dict`): for every array a tuple with one
        entry an axis: the layer's name, how the axis is made up of it, or None. Without metadata
        all entries are None.

    Raises:
        ValueError: a variable's metadata does not have one entry for every axis of its array, or
            an entry is none of these.
    """

    def axes(path: tuple, variable: nnx.Variable) -> Axes:
        ndim = variable.get_value().ndim
        declared = variable.get_metadata().get("neurons", (None,) * ndim)
        if len(declared) != ndim:
            raise ValueError(
                f"neurons of {'.'.join(map(str, path))} must name one layer or None for each of "
                f"its {ndim} axes, got {declared}"
            )
        for entry in declared:
            if not _is_axis(entry):
                raise ValueError(
                    f"neurons of {'.'.join(map(str, path))} must be a name, None, or a tuple of "
                    f"one name and positive numbers, such as ('heads', 64), got {entry!r}"
                )
        return tuple(tuple(entry) if isinstance(entry, list) else entry for entry in declared)

    return nnx.to_pure_dict(nnx.map_state(axes, nnx.state(model, kind)))


def unfolded(shape: Sequence[int], axes: Axes) -> tuple[tuple[int, ...], Plain]:
    """The shape with an axis of its own for the neurons of each layer, and those axes' names.

    Args:
        shape: of an array, full or of a subnetwork.
        axes: what lies along its axes.

    Returns:
        A shape to reshape the array to, and the layer's name or None for each of its axes.

    Raises:
        ValueError: a number of neurons would not be whole.

    >>> unfolded((3, 98), (None, (49, "channels")))
    ((3, 49, 2), (None, None, 'channels'))
    """
    lengths: list[int] = []
    names: list[str | None] = []
    for size, entry in zip(shape, axes, strict=True):
        factors = entry if isinstance(entry, tuple) else (entry,)
        times = math.prod(factor for factor in factors if isinstance(factor, int))
        if size % times:
            raise ValueError(f"an axis of {entry!r} must be a multiple of {times}, got {size}")
        for factor in factors:
            lengths.append(factor if isinstance(factor, int) else size // times)
            names.append(None if isinstance(factor, int) else factor)
    return tuple(lengths), tuple(names)


def folded(shape: Sequence[int], axes: Axes) -> tuple[int, ...]:
    """The shape before it was unfolded, for these numbers of neurons."""
    rest = list(shape)
    lengths = []
    for entry in axes:
        count = len(entry) if isinstance(entry, tuple) else 1
        lengths.append(math.prod(rest[:count]))
        del rest[:count]
    return tuple(lengths)


def layer_of(axis: Axis) -> str | None:
    """The layer of neurons along an axis, None if there is none."""
    if isinstance(axis, tuple):
        return next(factor for factor in axis if isinstance(factor, str))
    return axis


def repeats(axis: Axis) -> tuple[int, int]:
    """How often an axis repeats its neurons, and how many numbers it holds of each in a row.

    >>> repeats(("heads", 64)), repeats((49, "channels")), repeats("hidden1")
    ((1, 64), (49, 1), (1, 1))
    """
    if not isinstance(axis, tuple):
        return 1, 1
    at = axis.index(layer_of(axis) or "")
    before, after = (
        math.prod(factor for factor in factors if isinstance(factor, int))
        for factors in (axis[:at], axis[at + 1 :])
    )
    return before, after


def _is_axis(entry: Any) -> bool:
    if not isinstance(entry, tuple | list):
        return entry is None or isinstance(entry, str)
    names = [factor for factor in entry if isinstance(factor, str)]
    numbers = [factor for factor in entry if isinstance(factor, int) and factor > 0]
    return len(names) == 1 and len(names) + len(numbers) == len(entry)


def statistics_axes(model: nnx.Module, axes: Any) -> Any:
    """The layer of neurons along each axis of the variables that are not parameters.

    A running average, such as those of `nnx.BatchNorm`, that names no neurons lies along those of
    the parameters of its module that have its shape. Neurons without a parameter are not
    partitioned: every worker has all of them, and their name is left out.

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
    layers = {layer_of(axis) for axes in named.values() for axis in axes}
    return traverse_util.unflatten_dict(
        {
            path: tuple(axis if layer_of(axis) in layers else None for axis in axes)
            for path, axes in declared.items()
        }
    )


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
        ValueError: no axis is named, a name stands for two widths, or a width is not whole.
    """
    widths: dict[str, int] = {}

    def visit(path: tuple, array: Any, names: Axes) -> None:
        where = jax.tree_util.keystr(path, simple=True, separator=".")
        try:
            shape, plain = unfolded(array.shape, names)
        except ValueError as error:
            raise ValueError(f"neurons of {where}: {error}") from None
        for name, width in zip(plain, shape, strict=True):
            if name is not None and widths.setdefault(name, width) != width:
                raise ValueError(
                    f"neurons {name!r} must have one width, got {widths[name]} and, in {where}, "
                    f"{width}"
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
