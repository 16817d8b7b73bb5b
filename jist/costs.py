"""What a round costs: parameters held, bytes received, operations; and what a data set weighs.

Exact counts come from the shapes of a subnet; the paper's formulas (Yuan et al., VLDB 2022, §2.3),
which leave biases and optimiser states out, stand beside them.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from jist.ist import slots_per_owner, subnet_shapes, unfolded
from jist.ist.handover import goes_along
from jist.ist.wire import Wire, wire_bytes
from jist.masking import patches_kept
from jist.models.sparse_rows import BLOCK

BYTES = 4  # of a float32, the type in which the paper counts


def count(tree: Any) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def size_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of the matrix products and convolutions in a function.

    Counted in its jaxpr: 2 for each multiplication and addition, scans as often as they run, of
    branches the dearest; what is done element by element is left out, as in the paper.

    Args:
        function: traceable.
        *arguments: its arguments, or their shapes.

    Raises:
        ValueError: there are products in a `while` loop, whose length is unknown.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            inner = math.prod(kernel) // out_features
            total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
        inside = [_flops(inner) for inner in jaxprs_in_params(equation.params)]
        match equation.primitive.name:
            case "scan":
                total += equation.params["length"] * sum(inside)
            case "cond":
                total += max(inside)
            case "while" if sum(inside):
                raise ValueError("function has products in a while loop; they cannot be counted")
            case _:
                total += sum(inside)
    return total


def all_reduce_bytes(tree: Any, workers: int, participants: int | None = None) -> int:
    """Bytes that each of n workers receives in a ring all-reduce: 2 (n - 1) / n of the floats.

    Counters are not exchanged: they advance alike everywhere (`jist.ist.exchange.average`).

    Args:
        tree: arrays or shapes.
        workers: number of workers n.
        participants: k of them that have something to add. These bring the sum together, each
            (k - 1) / k of it, and all n have it in the end: (n + k - 2) / n, averaged over the
            workers. By default all.
    """
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    adding = workers if participants is None else participants
    return -(-(workers + adding - 2) * size_bytes(floats) // workers)


def replicated_bytes(
    tree: Any,
    axes: Any,
    part_widths: Mapping[str, int],
    workers: int,
    wire: Wire = None,
    participants: int | None = None,
) -> int:
    """Bytes that a worker receives when all pieces are all-gathered: those of the n - 1 others.

    Args:
        tree: full parameters or optimiser state, or shapes.
        axes: the layers of neurons along its axes.
        part_widths: {layer: neurons in the widest subnet}; the others are padded to it.
        workers: number of workers n, each on a device of its own.
        wire: type in which floats travel, as for `jist.ist.wire.send`.
        participants: how many workers take part. Pieces of those that are absent have not changed
            and need not travel; averaged over all workers. By default all take part.
    """
    piece = _piece_bytes(subnet_shapes(tree, axes, part_widths), wire)
    taking_part = workers if participants is None else participants
    return (workers - 1) * piece * taking_part // workers


def sharded_bytes(
    tree: Any, axes: Any, workers: int, wire: Wire = None, participants: int | None = None
) -> int:
    """Bytes that a worker receives when equal subnets travel by all-to-all; arguments as above.

    Out and back, n - 1 n-ths of a subnet whose sharded axis is padded to equally many slots for
    every owner; leaves without a named axis are averaged by a ring all-reduce. Workers that are
    absent need no subnet, and store their shares of the parameters all the same.
    """
    taking_part = workers if participants is None else participants

    def leaf(array: Any, axes: tuple) -> int:
        if not any(axes):
            return all_reduce_bytes(array, workers, participants)
        piece = _piece_bytes(_sharded_piece(array, axes, workers, workers), wire, workers)
        return 2 * (workers - 1) * piece * taking_part // workers**2

    return sum(jax.tree.leaves(jax.tree.map(leaf, tree, axes)))


def direct_bytes(tree: Any, axes: Any, workers: int, wire: Wire = None) -> int:
    """Bytes that a worker receives when neurons are sent straight on; arguments as above.

    Of what belongs to the neurons of one layer n - 1 n-ths of its next subnet; of what lies between
    two layers as `sharded_bytes`, out and back.
    """

    def leaf(array: Any, axes: tuple) -> int:
        both_ways = sharded_bytes(array, axes, workers, wire)
        return both_ways // 2 if goes_along(axes) else both_ways

    return sum(jax.tree.leaves(jax.tree.map(leaf, tree, axes)))


def exchange_bytes(
    tree: Any,
    axes: Any,
    part_widths: Mapping[str, int],
    workers: int,
    devices: int,
    wire: Wire = None,
) -> dict[str, int]:
    """Bytes that a device receives in a round by either exchange, where it trains n / D workers.

    Args:
        tree: as for `replicated_bytes`.
        axes: the same.
        part_widths: the same.
        workers: the same.
        devices: number of devices D; divides the workers and the widths.
        wire: as for `replicated_bytes`.

    Returns:
        {"replicated": the pieces of the other devices' workers, "sharded": out and back, D - 1
        D-ths of its own workers' subnets, and the all-reduce of what is shared}.
    """
    local = workers // devices
    whole = _piece_bytes(subnet_shapes(tree, axes, part_widths), wire)

    def leaf(array: Any, axes: tuple) -> int:
        if not any(axes):
            return all_reduce_bytes(array, devices)
        piece = _piece_bytes(_sharded_piece(array, axes, workers, devices), wire, devices)
        return 2 * (devices - 1) * local * piece // devices

    sharded = sum(jax.tree.leaves(jax.tree.map(leaf, tree, axes)))
    return {"replicated": (workers - local) * whole, "sharded": sharded}


def _sharded_piece(array: Any, axes: tuple, workers: int, devices: int) -> jax.ShapeDtypeStruct:
    """A worker's piece of an array, with equally many slots for every owner along its neurons."""
    shape = [
        size if name is None else devices * slots_per_owner(size, workers, devices)
        for size, name in zip(*unfolded(array.shape, axes), strict=True)
    ]
    return jax.ShapeDtypeStruct(tuple(shape), array.dtype)


def _piece_bytes(tree: Any, wire: Wire, messages: int = 1) -> int:
    """Bytes of a worker's piece, each array of which travels in as many messages."""
    leaves = jax.tree.leaves(tree)
    return sum(wire_bytes(leaf.shape, leaf.dtype, wire, messages) for leaf in leaves)


def data_parallel_bytes_paper(widths: Sequence[int]) -> int:
    """Bytes that each site receives per gradient step of data parallel training (§2.3)."""
    return BYTES * sum(a * b for a, b in itertools.pairwise(widths))


def ist_bytes_paper(widths: Sequence[int], workers: int, local_steps: int) -> float:
    """Bytes that each site receives per gradient step of IST (§2.3), averaged over the sites.

    All sites together receive (N_0 N_1 + N_{t-1} N_t) / J for the first and the last layer and
    Σ N_{i-1} N_i / (n J) for the layers between; the printed sum's bounds count the first and the
    last layer twice, which the text does not.
    """
    if len(widths) < 3:
        raise ValueError(f"widths must hold at least one hidden layer, got {tuple(widths)}")
    outer = widths[0] * widths[1] + widths[-2] * widths[-1]
    hidden = widths[1:-1]
    inner = sum(a * b for a, b in itertools.pairwise(hidden))
    return BYTES * (outer + inner / workers) / (workers * local_steps)


def label_step_bytes(
    widths: Sequence[int],
    batch: int,
    longest: int,
    chunk: int,
    *,
    moments: int = 0,
    fused: bool = False,
) -> int:
    """Peak bytes of an optimiser step with one hidden layer between sparse rows and many labels.

    Held are the parameters P, their gradient and the optimiser's moments; of a chunk of c labels
    its part of the kernel and that part's gradient, its logits and theirs: 2 c (d + B); and the
    entries of the batch, put together, with a block of the first kernel's rows. Logits of all
    labels, B × L, are not among them. Of a subnetwork, d is its own width. The first layer has no
    bias (`norm="standardize"`). XLA may copy a chunk's part of the kernel once more.

    Args:
        widths: features F, hidden neurons d, labels L.
        batch: examples B in a batch.
        longest: entries of the longest row, to which a batch is padded.
        chunk: labels whose logits are computed at a time.
        moments: arrays like the parameters that the optimiser holds: 0 of SGD, 2 of Adam.
        fused: whether the output layer takes its step a chunk at a time
            (`jist.strategies.FusedOutput`): the gradient is then that of the first layer alone, and
            a chunk's moments are held before and after the step.
    """
    features, hidden, labels = widths
    chunk = min(chunk, labels)
    parameters = features * hidden + hidden * labels + labels
    chunks = 2 * chunk * (hidden + batch)
    entries = 3 * batch * longest + BLOCK * hidden
    gradient = features * hidden if fused else parameters
    chunks += 2 * moments * chunk * hidden if fused else 0
    return BYTES * ((1 + moments) * parameters + gradient + chunks + entries)


def dataset_bytes_paper(image_size: int, ratio: float, examples: int) -> float:
    """Bytes of a data set of masked images by the formula of CPAL 2024, §3.1.1 and Table 4.

    Image size × (1 - r) × training images × 4 bytes. The printed numbers take the image size for
    H × W, without the three channels; `masked_bytes` counts what is really there.

    Args:
        image_size: side H = W of the original images in pixels.
        ratio: masking ratio r in [0, 1).
        examples: number of training images.
    """
    return BYTES * image_size**2 * (1 - ratio) * examples


def cls_bytes_paper(dim: int, examples: int) -> int:
    """Bytes of a data set of CLS vectors by the formula of CPAL 2024, §3.1.1, which is exact.

    Args:
        dim: numbers D in a vector.
        examples: number of training images.
    """
    return BYTES * dim * examples


def masked_bytes(image_size: int, patches: int, ratio: float, examples: int) -> int:
    """Exact bytes of a data set of masked images, uncompressed: kept patches and their indices.

    A pixel has three channels of one byte; an index has as many bytes as the number of patches L
    needs. Labels and ids are left out.

    Args:
        image_size: side of the images in pixels, as they are stored.
        patches: number of patches L into which the encoder cuts an image.
        ratio: masking ratio r in [0, 1); K = int(L (1 - r)) patches are kept.
        examples: number of images.

    Raises:
        ValueError: as `jist.masking.patches_kept`.
    """
    kept = patches_kept(patches, ratio)
    pixels = -(-3 * image_size**2 * kept // patches)  # patches need not end between two pixels
    return examples * (pixels + kept * np.min_scalar_type(patches - 1).itemsize)
