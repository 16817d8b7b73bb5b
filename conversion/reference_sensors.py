"""Encoders for remote sensing in PyTorch, under the names of their published files.

The reference for comparisons, as `conversion.reference`: Prithvi-EO's of sequences, DOFA's for any
sensor, Scale-MAE's positions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from conversion.reference import MaskedAutoencoder


class TransformerWeights(nn.Module):
    """DOFA's generator: from what stands for each wavelength [C, d] kernels [C, D p²], bias [D]."""

    def __init__(self, dim: int, patch_size: int, inner: int):
        super().__init__()
        layer = nn.TransformerEncoderLayer(inner, 4, activation="gelu", dropout=0.0)
        self.transformer_encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc_weight = nn.Linear(inner, dim * patch_size**2)
        self.fc_bias = nn.Linear(inner, dim)
        self.weight_tokens = nn.Parameter(torch.zeros(128, inner))
        self.bias_token = nn.Parameter(torch.zeros(1, inner))

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels of all channels, and one bias."""
        x = torch.cat([self.weight_tokens, channels, self.bias_token])
        x = self.transformer_encoder(x)
        return self.fc_weight(x[len(self.weight_tokens) : -1] + channels), self.fc_bias(x[-1])


class Residual(nn.Module):
    """Two linear layers with a ReLU behind each, beside a shortcut."""

    def __init__(self, dim: int):
        super().__init__()
        self.w1 = nn.Linear(dim, dim)
        self.w2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [C, d] to [C, d]."""
        return x + functional.relu(self.w2(functional.relu(self.w1(x))))


class WavelengthEmbedding(nn.Module):
    """A convolution whose kernel follows from the wavelengths of the channels, DOFA's.

    Xiong et al., arXiv 2403.15356, §3.
    """

    def __init__(self, dim: int, patch_size: int, wavelengths: tuple[float, ...], inner: int):
        super().__init__()
        self.patch_size, self.inner = patch_size, inner
        self.wavelengths = torch.tensor(wavelengths)
        self.fclayer = Residual(inner)
        self.weight_generator = TransformerWeights(dim, patch_size, inner)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, C, H, W] to patches [B, L, D], row by row."""
        omega = 1 / 10000 ** (torch.arange(self.inner // 2) / (self.inner / 2))
        angle = 1000 * self.wavelengths[:, None] * omega
        channels = self.fclayer(torch.cat([angle.sin(), angle.cos()], dim=1))
        kernel, bias = self.weight_generator(channels)
        shape = (len(bias), len(channels), self.patch_size, self.patch_size)
        x = functional.conv2d(
            images, 0.01 * kernel.view(shape), 0.01 * bias, stride=self.patch_size, padding=1
        )
        return x.flatten(2).transpose(1, 2)


class FrameEmbedding(nn.Module):
    """A convolution of one time step and p × p pixels, as Prithvi-EO's."""

    def __init__(self, dim: int, patch_size: int, channels: int):
        super().__init__()
        size = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(channels, dim, size, stride=size)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, C, H, W], each a sequence of one, to patches [B, L, D], row by row."""
        return self.proj(images[:, :, None]).flatten(2).transpose(1, 2)


class SequenceEncoder(MaskedAutoencoder):
    """An encoder of sequences of images under Prithvi-EO's names, which is given one frame.

    Args:
        *sizes: of `MaskedAutoencoder`.
        channels: channels C of an image.
        tokens: positions of CLS and of the patches of all frames.
    """

    def __init__(self, *sizes: Any, channels: int, tokens: int):
        super().__init__(*sizes, channels=channels)
        dim, patch_size = self.pos_embed.shape[2], self.patch_size
        self.patch_embed = FrameEmbedding(dim, patch_size, channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))


class SensorEncoder(MaskedAutoencoder):
    """An encoder for any sensor under DOFA's names, given the wavelengths of one.

    Args:
        *sizes: of `MaskedAutoencoder`.
        wavelengths: of the channels, in micrometres.
        inner: width of what stands for a wavelength.
    """

    def __init__(self, *sizes: Any, wavelengths: tuple[float, ...], inner: int = 128):
        super().__init__(*sizes, channels=len(wavelengths))
        dim, patch_size = self.pos_embed.shape[2], self.patch_size
        self.patch_embed = WavelengthEmbedding(dim, patch_size, wavelengths, inner)


def scaled_positions(dim: int, grid: int, metres: float) -> Tensor:
    """Scale-MAE's positions [1, 1 + grid², D] (Reed et al., arXiv 2212.14532, §3).

    Those of the masked autoencoder, at places that are multiplied by the ground resolution in
    metres; columns first, and zeros for CLS.
    """
    place = torch.arange(grid, dtype=torch.float64) * metres
    omega = 10000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angle = place[:, None] * omega
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    columns = axis[None, :, :].expand(grid, grid, -1)
    rows = axis[:, None, :].expand(grid, grid, -1)
    patches = torch.cat([columns, rows], dim=2).reshape(grid**2, dim)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), patches])[None].float()
