"""The masked autoencoder in PyTorch, pre-trained as jist does it, to be timed beside it.

The model is the reference of `conversion`, made as fast as PyTorch's own means allow, so that the
comparison is with what a user of PyTorch would run: only the kept patches are embedded, attention
is PyTorch's fused one, AdamW its fused one. As in jist, parameters, their moments and the loss are
float32 whatever the compute type, and everything between is of the compute type.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from conversion import reference
from conversion.names import VIT_NAMINGS
from experiments.bench.torch_mlp import compile_loss
from jist.models import MAE, MAEEncoder
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
        values, self.decayed = _values(mae)
        self.load_state_dict(values)
        self.pos_embed.requires_grad_(False)
        self.decoder_pos_embed.requires_grad_(False)

    def forward(self, pixels: Tensor, keep: Tensor) -> Tensor:
        """The loss of pixels [B, 3, H, W], u8, of which the patches [B, K] are kept."""
        images = (pixels.float() / 255 - self.mean) / self.std
        tokens = self.encode(images.to(self.cls_token.dtype), keep)
        return self.loss(images, self.decode(tokens, keep).float(), keep)


def _values(mae: MAE) -> tuple[dict[str, Tensor], set[str]]:
    """Every tensor under its published name, and the names of those that jist's AdamW decays."""
    values, decayed = {}, set()
    for part, module in (("encoder", mae.encoder), ("decoder", mae.decoder)):
        arrays = tensors(module)
        for rule in VIT_NAMINGS[0].rules(part, module.config.depth):
            array = np.asarray(arrays[rule.jist])
            for name, value in zip(rule.source, rule.layout.to_source(array), strict=True):
                values[name] = torch.from_numpy(np.array(value, order="C"))
                if array.ndim > 1:
                    decayed.add(name)
    return values, decayed


class TorchSteps:
    """Steps of AdamW in PyTorch on given images and masks.

    Args:
        mae: the model of jist with the initial values.
        pixels: images [N, S, S, 3], u8.
        keep: kept patches of each [N, K].
        rates: the learning rate of every step.
        weight_decay: decay of what jist decays.
        dtype: compute type, "float32" or "bfloat16".
        device: "cpu" or "cuda".
        compiled: whether loss and gradients go through `torch.compile`, on a GPU as CUDA graphs.
    """

    def __init__(
        self,
        mae: MAE,
        pixels: np.ndarray,
        keep: np.ndarray,
        rates: Sequence[float],
        *,
        weight_decay: float,
        dtype: str,
        device: str,
        compiled: bool,
    ):
        self._device, self._rates, self._taken = device, rates, 0
        # Channels first, the order that PyTorch is used to.
        self._pixels = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(device)
        self._keep = torch.from_numpy(keep.astype(np.int64)).to(device)
        model = TrainableMAE(mae).to(device)
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if name in model.decayed]},
            {"params": [p for name, p in trained if name not in model.decayed], "weight_decay": 0},
        ]
        self._optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay, fused=True
        )

        def loss(pixels: Tensor, keep: Tensor) -> Tensor:
            # Gradients reach the float32 parameters through the rounding.
            rounded = {name: p.to(getattr(torch, dtype)) for name, p in model.named_parameters()}
            return functional_call(model, rounded, (pixels, keep))

        self._loss = compile_loss(loss, device) if compiled else loss

    def __call__(self, order: np.ndarray) -> np.ndarray:
        """Takes steps on the images in the rows of `order` [steps, B]; their losses, once done."""
        losses = []
        for rows in torch.from_numpy(order.astype(np.int64)).to(self._device):
            for group in self._optimizer.param_groups:
                # Only times are wanted beyond the schedule, whose last rate stays.
                group["lr"] = self._rates[min(self._taken, len(self._rates) - 1)]
            loss = self._loss(self._pixels[rows], self._keep[rows])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            losses.append(loss.detach().clone())  # CUDA graphs write over it
            self._taken += 1
        return torch.stack(losses).cpu().numpy()
