"""Convolutions of images, with a gradient that XLA:CPU computes well in a loop.

Within a loop, as that over the local steps of a round, XLA:CPU (jax 0.10.2) takes 30 to 50 times
as long for the gradient of a kernel as outside of it. As one matrix product for each place in the
kernel it is as fast in a loop as anywhere. GPUs have their own.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jist.models.primitives import once

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Convolution(nnx.Module):
    """A convolution without a bias, padded on every side by half of its kernel.

    Args:
        inputs: channels C of an image.
        outputs: channels D of the result.
        size: side K of the kernel in pixels, odd.
        stride: pixels from one place to the next.
        before: name of the input channels, if they are dealt to workers.
        after: name of the output channels, likewise.
        rngs: initialisation (He normal).

    Raises:
        ValueError: an even size.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        before: str | None = None,
        after: str | None = None,
        rngs: nnx.Rngs,
    ):
        if size % 2 == 0:
            raise ValueError(f"size must be odd, got {size}")
        draw = nnx.initializers.he_normal()
        self.kernel = nnx.Param(
            draw(rngs.params(), (size, size, inputs, outputs)),
            neurons=(None, None, before, after),
        )
        self.out_features, self.stride = outputs, stride

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height2 width2 channels2"]:
        """Maps x [B, H, W, C] to [B, ⌈H / stride⌉, ⌈W / stride⌉, D]."""
        return convolve(x, self.kernel[...], self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels outputs"],
    stride: int = 1,
) -> Float[Array, "batch height2 width2 outputs"]:
    """The convolution of images with a kernel of odd size, padded by half of it with zeros."""
    return _convolve(stride, x, kernel)


def _convolve(stride: int, x: Array, kernel: Array) -> Array:
    half = len(kernel) // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((half, half),) * 2, dimension_numbers=_LAYOUT
    )


def _gradients(stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    if jax.default_backend() != "cpu":
        _, gradients = jax.vjp(functools.partial(_convolve, stride), x, kernel)
        return gradients(dy)
    dy = once(dy)
    rows = dy.reshape(-1, dy.shape[-1])
    products = [
        place.reshape(len(rows), -1).T @ rows
        for place in _places(x, len(kernel), stride, dy.shape[1:3])
    ]
    return _input_gradient(x, kernel, stride, dy), jnp.stack(products).reshape(kernel.shape)


def _places(x: Array, size: int, stride: int, shape: tuple[int, ...]) -> Iterator[Array]:
    """For every place in the kernel, row by row, the pixels [B, H2, W2, C] that it meets."""
    half = size // 2
    padded = jnp.pad(x, [(0, 0), (half, half), (half, half), (0, 0)])
    down, right = (1 + (length - 1) * stride for length in shape)
    for i in range(size):
        for j in range(size):
            end = (len(x), i + down, j + right, x.shape[3])
            yield jax.lax.slice(padded, (0, i, j, 0), end, (1, stride, stride, 1))


def _input_gradient(x: Array, kernel: Array, stride: int, dy: Array) -> Array:
    """The transposed convolution: dy, spread by the stride, with the kernel turned round."""
    half = len(kernel) // 2
    pads = [
        (half, length + half - 1 - (found - 1) * stride)
        for length, found in zip(x.shape[1:3], dy.shape[1:3], strict=True)
    ]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return jax.lax.conv_general_dilated(
        dy, turned, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )


convolve.defvjp(lambda x, kernel, stride: (convolve(x, kernel, stride), (x, kernel)), _gradients)
