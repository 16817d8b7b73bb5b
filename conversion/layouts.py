"""Layouts of tensors in PyTorch and in jist, and the exact conversion between the two.

PyTorch's linear kernels are [outputs, inputs] and its images have their channels first; Flax has
[inputs, outputs] and channels last. Numbers are only moved, but for those of `SCALED_LINEAR` and
`SCALED_BIAS`: what a LayerScale multiplies goes into the linear layer before it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A pair of inverse functions between a source's tensors and the one of jist.

    Attributes:
        to_jist: the source's tensors (one, or queries, keys and values) to jist's.
        to_source: the inverse.
    """

    to_jist: Callable[[Sequence[np.ndarray]], np.ndarray]
    to_source: Callable[[np.ndarray], list[np.ndarray]]


def _kernel_to_patches(tensors: Sequence[np.ndarray]) -> np.ndarray:
    (kernel,) = tensors
    return kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])


def patches(channels: int) -> Layout:
    """The convolution that cuts images of C channels into patches.

    It is a linear map of (row, column, channel).
    """

    def to_kernel(matrix: np.ndarray) -> list[np.ndarray]:
        side = round((len(matrix) / channels) ** 0.5)
        return [matrix.reshape(side, side, channels, -1).transpose(3, 2, 0, 1)]

    return Layout(_kernel_to_patches, to_kernel)


SAME = Layout(lambda t: t[0], lambda a: [a])
LINEAR = Layout(lambda t: t[0].T, lambda a: [a.T])
PATCHES = patches(3)
CONVOLUTION = Layout(lambda t: t[0].transpose(2, 3, 1, 0), lambda a: [a.transpose(3, 2, 0, 1)])
# One learned vector [D] is [1, 1, D] in the sources, and positions [T, D] are [1, T, D].
VECTOR = Layout(lambda t: t[0].reshape(t[0].shape[-1]), lambda a: [a[None, None]])
POSITIONS = Layout(lambda t: t[0].reshape(t[0].shape[-2:]), lambda a: [a[None]])
# Queries, keys and values in three tensors become one.
FUSED_LINEAR = Layout(
    lambda t: np.concatenate([kernel.T for kernel in t], axis=1),
    lambda a: [kernel.T for kernel in np.split(a, 3, axis=1)],
)
FUSED_BIAS = Layout(np.concatenate, lambda a: np.split(a, 3))
# A linear layer and the LayerScale [outputs] behind it; on the way back the scale is one.
SCALED_LINEAR = Layout(
    lambda t: t[0].T * t[1],
    lambda a: [a.T, np.ones(a.shape[1], a.dtype)],
)
SCALED_BIAS = Layout(lambda t: t[0] * t[1], lambda a: [a, np.ones_like(a)])
