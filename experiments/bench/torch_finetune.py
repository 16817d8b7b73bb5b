"""Fine-tuning in PyTorch, as jist does it, to be timed beside it: a ViT as timm has it, and a head.

Only visible patches are embedded, and attention is PyTorch's fused one (`torch_mae`). Groups of
AdamW with learning rates of their own, as timm's `param_groups_layer_decay` makes them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.bench.torch_mae import FastMAE, published
from experiments.bench.torch_steps import TorchSteps, on_device
from jist.models import Classifier


class TrainableClassifier(FastMAE):
    """From pixels and visible patches to the loss, of a model of jist its shape and values.

    Args:
        model: whose head sees CLS.
        label_smoothing: share of the target that is spread over all classes.
    """

    def __init__(self, model: Classifier, label_smoothing: float):
        super().__init__(model.encoder)
        values, self.decayed = published(model.encoder, "encoder")
        self.load_state_dict(values)
        self.pos_embed.requires_grad_(False)
        kernel = torch.from_numpy(np.array(model.head.kernel[...].T, order="C"))
        assert model.head.bias is not None
        bias = torch.from_numpy(np.array(model.head.bias[...]))
        self.head = nn.Linear(kernel.shape[1], kernel.shape[0])
        self.head.load_state_dict({"weight": kernel, "bias": bias})
        self.decayed.add("head.weight")
        self.label_smoothing = label_smoothing

    def forward(self, pixels: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        """The loss of pixels [B, 3, H, W], u8, of classes [B], of which patches [B, K] are seen."""
        images = (pixels.float() / 255 - self.mean) / self.std
        logits = self.head(self.encode(images, keep)[:, 0])
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def groups(self, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """Parameters that learn at one rate, and decay or do not, as PyTorch's AdamW takes them."""
        found: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                found.setdefault((self._layer(name), name in self.decayed), []).append(parameter)
        last = len(self.blocks) + 1
        return [
            {
                "params": parameters,
                "weight_decay": decays * weight_decay,
                "scale": layer_decay ** (last - layer),
            }
            for (layer, decays), parameters in found.items()
        ]

    def _layer(self, name: str) -> int:
        """0 of the embedding, i + 1 of block i; what comes after the blocks is the last."""
        if name.startswith(("cls_token", "patch_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return len(self.blocks) + 1


class TorchFinetuning:
    """Steps of fine-tuning on given images and masks, in float32.

    Args:
        model: of jist, with the initial values; its head sees CLS.
        x: "image", pixels u8 [N, S, S, 3], and "keep", visible patches [N, K].
        y: classes [N].
        rates: the learning rate of the head in every step.
        label_smoothing: as of `TrainableClassifier`.
        weight_decay: decay of matrices.
        layer_decay: factor of the learning rate from each layer to the one below.
        device: "cpu" or "cuda".
        compiled: as of `TorchSteps`.
    """

    def __init__(
        self,
        model: Classifier,
        x: dict[str, np.ndarray],
        y: np.ndarray,
        rates: Sequence[float],
        *,
        label_smoothing: float,
        weight_decay: float,
        layer_decay: float,
        device: str,
        compiled: bool,
    ):
        self._model = TrainableClassifier(model, label_smoothing).to(device)
        examples = on_device(x["image"], x["keep"], device, y)
        groups = self._model.groups(weight_decay, layer_decay)
        self._steps = TorchSteps(
            *(self._model, examples, groups, rates),
            betas=(0.9, 0.999),
            dtype="float32",
            compiled=compiled,
        )

    def __call__(self, order: np.ndarray) -> float:
        """Trains on the rows [steps, B]; the mean loss, once it is known."""
        return float(self._steps(order).mean())

    def named(self) -> dict[str, np.ndarray]:
        """The parameters by their published names, copied."""
        return {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in self._model.named_parameters()
        }
