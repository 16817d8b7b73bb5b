"""Encoders of sequences, such as Prithvi-EO's: one time step of them is an encoder of images.

Their patches are cut by a three-dimensional convolution, of one time step and p × p pixels, and
their positions follow one another frame by frame. Without its first frame's neighbours a frame is
encoded by the same weights, with the positions of the first frame. Decoders predict all frames, and
embeddings of date and place need both: neither is taken over.
"""

import dataclasses
import functools

import numpy as np

from conversion.errors import ConversionError
from conversion.source import Source, Tensor

_PREFIX = "encoder."  # of files that hold encoder and decoder as parts, as Prithvi-EO-2.0's do
_KERNEL, _POSITIONS = "patch_embed.proj.weight", "pos_embed"
_LEFT_OUT = ("decoder", "mask_token", "temporal_embed", "location_embed")
# Of 16 parts of a position 6 are the column's, 6 the row's, 4 the frame's.
_IN_SPACE = 12 / 16


def one_step(source: Source) -> Source:
    """A source of images; of a sequence's encoder, its first time step.

    Raises:
        ConversionError: patches span several time steps, or the positions are no frames of squares.
    """
    tensors = source.tensors
    if _PREFIX + _KERNEL in tensors:
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    kernel = tensors.get(_KERNEL)
    if kernel is None or len(kernel.shape) != 5 or _POSITIONS not in tensors:
        return source
    if kernel.shape[2] != 1:
        raise ConversionError(
            f"{source.files[0]} cuts patches of {kernel.shape[2]} time steps; one step alone can "
            "be taken out of patches of one"
        )
    positions = tensors[_POSITIONS]
    patches = patches_of_a_frame(positions.read()[0, 1:])
    frames = (positions.shape[1] - 1) // patches
    dim = positions.shape[2]
    kept = {name: t for name, t in tensors.items() if not name.startswith(_LEFT_OUT)}
    kept[_KERNEL] = Tensor(
        (*kernel.shape[:2], *kernel.shape[3:]),
        kernel.dtype,
        functools.partial(_first_step, kernel),
    )
    kept[_POSITIONS] = Tensor(
        (1, 1 + patches, dim), positions.dtype, functools.partial(_first_frame, positions, patches)
    )
    kind = f"{source.kind}, the first of {frames} time steps"
    return dataclasses.replace(source, kind=kind, tensors=kept, original=source)


def patches_of_a_frame(positions: np.ndarray) -> int:
    """Patches of a frame: after as many, the part of a position that is in space returns.

    Args:
        positions: of all patches [T · L, D], frame by frame.

    Raises:
        ConversionError: there is no such number that is a square.
    """
    count, dim = positions.shape
    in_space = positions[:, : int(dim * _IN_SPACE)]
    for side in range(1, int(count**0.5) + 1):
        patches = side**2
        if count % patches == 0 and np.allclose(
            in_space[patches:], in_space[:-patches], rtol=0, atol=1e-5
        ):
            return patches
    raise ConversionError(
        f"{count} positions are no frames of squares: the encoder of a sequence has the positions "
        "of a frame once for each time step"
    )


def _first_step(kernel: Tensor) -> np.ndarray:
    return kernel.read()[:, :, 0]


def _first_frame(positions: Tensor, patches: int) -> np.ndarray:
    return positions.read()[:, : 1 + patches]
