"""Hugging Face's ViTMAEModel with the weights of a jist encoder, as a user of PyTorch would run it.

In inference mode, in the compute type throughout, with PyTorch's fused attention; eager or through
`torch.compile`. It embeds every patch and drops those that are not kept, as ViTMAE does.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import transformers
from torch import Tensor

from conversion.export import huggingface_config
from conversion.names import VIT_NAMINGS
from experiments.bench.torch_mae import published
from jist.models import MAEEncoder, weights

# Under the names of the files on the hub, which every version of transformers reads.
NAMING = next(naming for naming in VIT_NAMINGS if naming.name == "huggingface-bare")

# CLS vectors [B, D], f32, of images [B, S, S, 3], u8, and noise [B, L] that says what is kept.
TorchEncode = Callable[[Tensor, Tensor], Tensor]


def make_encode(
    encoder: MAEEncoder, kept: int, *, dtype: str, device: str, compiled: bool
) -> TorchEncode:
    """The encoder in PyTorch.

    Args:
        encoder: whose shape, weights and preprocessing are taken.
        kept: visible patches K of every image.
        dtype: compute type, "float32" or "bfloat16".
        device: "cpu" or "gpu".
        compiled: whether it goes through `torch.compile`.
    """
    where = place(device)
    rounded = getattr(torch, dtype)
    model = _model(encoder, kept).to(where, rounded)
    mean = torch.tensor(encoder.preprocessing.mean, device=where)[:, None, None]
    std = torch.tensor(encoder.preprocessing.std, device=where)[:, None, None]

    def encode(images: Tensor, noise: Tensor) -> Tensor:
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
        tokens = model(pixels.to(rounded), noise=noise).last_hidden_state
        return tokens[:, 0].float()

    if compiled:
        # Else what was compiled before would count towards the limit of recompilations.
        torch.compiler.reset()
    return torch.inference_mode()(torch.compile(encode, dynamic=False) if compiled else encode)


def place(device: str) -> str:
    """What PyTorch calls the devices of `hardware.DEVICES`."""
    return {"cpu": "cpu", "gpu": "cuda"}[device]


def noise(keep: np.ndarray, patches: int) -> np.ndarray:
    """Noise [B, L], f32, of which ViTMAE's least K values are those of the kept patches [B, K]."""
    values = np.ones((len(keep), patches), np.float32)
    np.put_along_axis(values, keep, 0, axis=1)
    return values


def _model(encoder: MAEEncoder, kept: int) -> torch.nn.Module:
    shape = {"format": weights.FORMAT, "encoder": dataclasses.asdict(encoder.config)}
    patches = encoder.config.patches
    config = transformers.ViTMAEConfig(
        **huggingface_config(shape),
        # Half a patch more, so that its int(patches * (1 - ratio)) is `kept` despite rounding.
        mask_ratio=max(0.0, 1 - (kept + 0.5) / patches),
    )
    state, _ = published(encoder, "encoder", NAMING)
    transformers.logging.disable_progress_bar()
    model = transformers.ViTMAEModel.from_pretrained(
        None, config=config, state_dict=state, attn_implementation="sdpa"
    )
    return model.eval()
