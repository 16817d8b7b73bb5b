"""Encoders for any sensor, DOFA's: the patch embedding of given wavelengths.

Xiong et al., Neural Plasticity-Inspired Multimodal Foundation Model for Earth Observation (arXiv
2403.15356, §3). A small Transformer makes the kernel of every channel from its wavelength, and the
bias from all of them. For given wavelengths both are constant, so they are computed once, and an
encoder of images remains. Its convolution pads images by one pixel on every side: a patch begins
one pixel above and to the left of its place, `Preprocessing.border`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np
from scipy.special import erf

from conversion.errors import ConversionError, some
from conversion.source import Source, Tensor

PADDING = 1  # of the published convolution
_PART = "patch_embed."
_MADE = "patch_embed.proj."
_GENERATOR = f"{_PART}weight_generator."
_LAYER = f"{_GENERATOR}transformer_encoder.layers.0."
_NEEDED = (
    *(f"{_GENERATOR}{name}" for name in ("weight_tokens", "bias_token")),
    *(f"{_PART}fclayer.{name}.{of}" for name in ("w1", "w2") for of in ("weight", "bias")),
    *(f"{_GENERATOR}fc_{name}.{of}" for name in ("weight", "bias") for of in ("weight", "bias")),
    *(f"{_LAYER}self_attn.in_proj_{of}" for of in ("weight", "bias")),
    *(
        f"{_LAYER}{name}.{of}"
        for name in ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
        for of in ("weight", "bias")
    ),
)
# Of the pre-training: its decoder, and the map to the features that it distils.
_LEFT_OUT = ("decoder", "mask_token", "projector")
_HEADS = 4
_SCALE = 0.01
_EPSILON = 1e-5  # the default of PyTorch's LayerNorm
_NANOMETRES = 1000  # of a micrometre
# Micrometres: radio waves of Sentinel-1's radar are 55,000.
_SHORTEST, _LONGEST = 0.01, 1e6


def for_wavelengths(source: Source, wavelengths: tuple[float, ...] | None) -> Source:
    """A source of images of some bands; of any sensor's, if its patch embedding is generated.

    Args:
        source: the source.
        wavelengths: of the bands, in micrometres, in the order of the images' channels.

    Raises:
        ConversionError: wavelengths are missing, or given although no embedding is generated, or
            are no lengths; tensors of the generator are missing or of other shapes.
    """
    tensors = source.tensors
    if f"{_GENERATOR}weight_tokens" not in tensors:
        if wavelengths is not None:
            raise ConversionError(
                f"--wavelengths is for DOFA, whose patch embedding follows from them; "
                f"{source.files[0]} has one of its own"
            )
        return source
    if not wavelengths:
        raise ConversionError(
            f"{source.files[0]} makes its patch embedding from the wavelengths of the bands: give "
            "them in micrometres (--wavelengths 0.665 0.56 0.49 for red, green, blue)"
        )
    if not all(_SHORTEST <= length <= _LONGEST for length in wavelengths):
        raise ConversionError(
            f"--wavelengths must be micrometres between {_SHORTEST} and {_LONGEST:,.0f}, got "
            f"{wavelengths}"
        )
    if any(100 <= length <= 3000 for length in wavelengths):
        raise ConversionError(
            f"--wavelengths {wavelengths} look like nanometres; they are given in micrometres, a "
            "thousandth of those"
        )
    missing = set(_NEEDED) - tensors.keys()
    if missing:
        raise ConversionError(
            f"{source.files[0]} has a patch embedding like DOFA's, but lacks {some(missing)}"
        )
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(_PART)}
    kept = {n: t for n, t in tensors.items() if n not in own and not n.startswith(_LEFT_OUT)}
    embedding = functools.cache(functools.partial(_embedding, source, wavelengths))
    width, patch_size = _sizes(source)
    shape = (width, len(wavelengths), patch_size, patch_size)
    kept[f"{_MADE}weight"] = Tensor(shape, "float32", lambda: embedding()[0])
    kept[f"{_MADE}bias"] = Tensor((width,), "float32", lambda: embedding()[1])
    if not any(name.endswith("norm.weight") for name in kept):  # torchgeo's file leaves it out
        kept["norm.weight"] = Tensor((width,), "float32", lambda: np.ones(width, np.float32))
        kept["norm.bias"] = Tensor((width,), "float32", lambda: np.zeros(width, np.float32))
    listed = ", ".join(f"{length:g}" for length in wavelengths)
    return dataclasses.replace(
        source,
        kind=f"{source.kind}, patches for {listed} µm",
        tensors=kept,
        original=source,
        padding=PADDING,
    )


def _sizes(source: Source) -> tuple[int, int]:
    """Width of a token and side of a patch."""
    (width,) = source.tensors[f"{_GENERATOR}fc_bias.bias"].shape
    (numbers,) = source.tensors[f"{_GENERATOR}fc_weight.bias"].shape
    side = math.isqrt(numbers // width)
    if side**2 * width != numbers:
        raise ConversionError(
            f"{_GENERATOR}fc_weight makes {numbers} numbers of a channel, which are no kernels of "
            f"squares for {width} outputs"
        )
    return width, side


def _embedding(source: Source, wavelengths: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [D, C, p, p] and bias [D] of the convolution."""
    weights = {name: source.tensors[name].read().astype(np.float64) for name in _NEEDED}
    width, side = _sizes(source)
    try:
        channels = _channels(weights, np.asarray(wavelengths))
        tokens = np.concatenate(
            [weights[f"{_GENERATOR}weight_tokens"], channels, weights[f"{_GENERATOR}bias_token"]]
        )
        tokens = _block(weights, tokens)
        kernels = _linear(
            weights, f"{_GENERATOR}fc_weight", tokens[-1 - len(channels) : -1] + channels
        )
        bias = _linear(weights, f"{_GENERATOR}fc_bias", tokens[-1])
    except ValueError as error:
        raise ConversionError(
            f"{source.files[0]}: tensors of the generator do not fit together: {error}"
        ) from None
    # The numbers of all channels are read as [D, C, p, p], not channel by channel: DOFA does so.
    kernel = kernels.reshape(width, len(channels), side, side)
    return (_SCALE * kernel).astype(np.float32), (_SCALE * bias).astype(np.float32)


def _channels(weights: Mapping[str, np.ndarray], wavelengths: np.ndarray) -> np.ndarray:
    """What stands for each wavelength [C, d]: its sine and cosine, and a residual layer."""
    half = weights[f"{_PART}fclayer.w1.weight"].shape[1] // 2
    # Rounded where DOFA's float32 is: at an angle of 2,000 a rounding is an error of 1e-4.
    omega = 1 / (10_000 ** (np.arange(half) / half)).astype(np.float32)
    angles = np.outer(wavelengths.astype(np.float32) * np.float32(_NANOMETRES), omega)
    angles = angles.astype(np.float64)
    x = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    inner = np.maximum(_linear(weights, f"{_PART}fclayer.w1", x), 0)
    return x + np.maximum(_linear(weights, f"{_PART}fclayer.w2", inner), 0)


def _block(weights: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """A block of a Transformer [T, d] with its LayerNorms behind the sums, as PyTorch's default."""
    joint = weights[f"{_LAYER}self_attn.in_proj_weight"], weights[f"{_LAYER}self_attn.in_proj_bias"]
    fused = (x @ joint[0].T + joint[1]).reshape(len(x), 3, _HEADS, -1)
    query, key, value = np.moveaxis(fused, 0, 2)  # [heads, T, d / heads] each
    scores = query @ np.swapaxes(key, 1, 2) / math.sqrt(query.shape[2])
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    found = shares / shares.sum(axis=2, keepdims=True) @ value
    joined = np.moveaxis(found, 0, 1).reshape(len(x), -1)
    x = _normed(weights, "norm1", x + _linear(weights, f"{_LAYER}self_attn.out_proj", joined))
    inner = _linear(weights, f"{_LAYER}linear1", x)
    inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
    return _normed(weights, "norm2", x + _linear(weights, f"{_LAYER}linear2", inner))


def _linear(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normed(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON)
    return scaled * weights[f"{_LAYER}{name}.weight"] + weights[f"{_LAYER}{name}.bias"]
