"""The masked autoencoder in PyTorch, pre-trained as jist does it, to be timed beside it.

The model is the reference of `conversion`, made as fast as PyTorch's own means allow, so that the
comparison is with what a user of PyTorch would run: only the kept patches are embedded, attention
is PyTorch's fused one.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from conversion import reference
from conversion.names import VIT_NAMINGS, Naming
from experiments.bench.torch_steps import TorchSteps, on_device
from jist.models import MAE, MAEEncoder
from jist.models.decoder import Decoder
from jist.models.storage import tensors


class FusedAttention(reference.SelfAttention):
    """Multi-head attention by PyTorch's fused kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, T, D] to [B, T, D]."""
        batch, tokens, dim = x.shape
        heads = self.qkv(x).unflatten(2, (3, self.heads, dim // self.heads))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


class FastMAE(reference.MaskedAutoencoder):
    """The reference with fused attention, which embeds nothing but the kept patches.

    Args:
        encoder: of jist, whose shape and preprocessing it takes, not its values.
        decoder: sizes and targets, as of the reference; none by default.
    """

    def __init__(self, encoder: MAEEncoder, **decoder: Any):
        sizes = dataclasses.asdict(encoder.config)
        sizes["eps"] = sizes.pop("layer_norm_eps")
        super().__init__(**sizes, **decoder)
        for block in (*self.blocks, *getattr(self, "decoder_blocks", ())):
            assert isinstance(block, reference.TransformerBlock)
            block.attn = FusedAttention(block.attn.qkv.in_features, block.attn.heads)
        preprocessing = encoder.preprocessing
        self.mean = nn.Buffer(torch.tensor(preprocessing.mean)[:, None, None], persistent=False)
        self.std = nn.Buffer(torch.tensor(preprocessing.std)[:, None, None], persistent=False)

    def encode(self, images: Tensor, keep: Tensor) -> Tensor:
        """Tokens [B, 1 + K, D] of the kept patches [B, K] of images [B, 3, H, W], CLS first."""
        p, projection = self.patch_size, self.patch_embed.proj
        patches = functional.unfold(images, p, stride=p).transpose(1, 2)
        patches = patches.gather(1, keep[:, :, None].expand(-1, -1, patches.shape[2]))
        x = functional.linear(patches, projection.weight.flatten(1), projection.bias)
        x = x + self.pos_embed[0, 1:][keep]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TrainableMAE(FastMAE):
    """The masked autoencoder from pixels to loss, of a model of jist its shape and values."""

    def __init__(self, mae: MAE):
        sizes = dataclasses.astuple(mae.decoder.config)
        super().__init__(mae.encoder, decoder=sizes, normalize_pixels=mae.normalize_pixels)
        encoder, decays = published(mae.encoder, "encoder")
        decoder, too = published(mae.decoder, "decoder")
        self.load_state_dict(encoder | decoder)
        self.decayed = decays | too
        self.pos_embed.requires_grad_(False)
        self.decoder_pos_embed.requires_grad_(False)

    def forward(self, pixels: Tensor, keep: Tensor) -> Tensor:
        """The loss of pixels [B, 3, H, W], u8, of which the patches [B, K] are kept."""
        images = (pixels.float() / 255 - self.mean) / self.std
        tokens = self.encode(images.to(self.cls_token.dtype), keep)
        return self.loss(images, self.decode(tokens, keep).float(), keep)


def published(
    module: MAEEncoder | Decoder, part: str, naming: Naming = VIT_NAMINGS[0]
) -> tuple[dict[str, Tensor], set[str]]:
    """The values of an encoder or a decoder of jist as PyTorch has them.

    Args:
        module: the part.
        part: "encoder" or "decoder".
        naming: whose names; facebookresearch's and timm's by default.

    Returns:
        Every tensor under its published name, and the names of those that jist's AdamW decays.
    """
    arrays = tensors(module)
    values, decayed = {}, set()
    for rule in naming.rules(part, module.config.depth):
        array = np.asarray(arrays[rule.jist])
        for name, value in rule.to_source(array):
            values[name] = torch.from_numpy(np.array(value, order="C"))
            if array.ndim > 1:
                decayed.add(name)
    return values, decayed


def pretraining_steps(
    mae: MAE,
    images: np.ndarray,
    keep: np.ndarray,
    rates: Sequence[float],
    *,
    weight_decay: float,
    dtype: str,
    device: str,
    compiled: bool,
) -> TorchSteps:
    """Steps of pre-training on given images and masks.

    Args:
        mae: the model of jist with the initial values.
        images: pixels [N, S, S, 3], u8.
        keep: kept patches of each [N, K].
        rates: the learning rate of every step.
        weight_decay: decay of what jist decays.
        dtype: compute type, "float32" or "bfloat16".
        device: "cpu" or "cuda".
        compiled: as of `TorchSteps`.
    """
    model = TrainableMAE(mae).to(device)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for name, p in trained if (name in model.decayed) == decays],
            "weight_decay": decays * weight_decay,
        }
        for decays in (True, False)
    ]
    examples = on_device(images, keep, device)
    return TorchSteps(
        *(model, examples, groups, rates), betas=(0.9, 0.95), dtype=dtype, compiled=compiled
    )
