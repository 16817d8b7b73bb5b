"""An exported classifier in PyTorch, from its arrays, as a user of PyTorch would run it."""

import pathlib
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from experiments.bench.torch_mae import FastMAE, published
from experiments.runs.directory import read_json
from jist.models import MAEEncoder, load_encoder
from jist.placement import available_cores


class TorchClassifier(FastMAE):
    """From pixels and visible patches to probabilities; the head sees CLS.

    Args:
        encoder: of jist, whose shape and values it takes.
        head: kernel and bias of every layer, by the names of an export.
        temperature: by which logits are divided.
    """

    def __init__(self, encoder: MAEEncoder, head: dict[str, Tensor], temperature: float):
        super().__init__(encoder)
        self.load_state_dict(published(encoder, "encoder")[0])
        self.temperature = temperature
        layers: list[nn.Module] = []
        for number in range(len(head) // 2):
            kernel, bias = head[f"{number}.kernel"].float(), head[f"{number}.bias"]
            inputs, outputs = kernel.shape
            layer = nn.Linear(inputs, outputs)
            layer.load_state_dict({"weight": kernel.T, "bias": bias})
            layers += [nn.ReLU()] * (number > 0) + [layer]
        self.head = nn.Sequential(*layers)

    def forward(self, pixels: Tensor, keep: Tensor) -> Tensor:
        """Probabilities [B, C] of pixels u8 [B, S, S, 3] with visible patches [B, K]."""
        images = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits = self.head(self.encode(images, keep)[:, 0])
        return functional.softmax(logits / self.temperature, dim=1)


def torch_classifier(
    directory: pathlib.Path, *, compiled: bool
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The network of an export as safetensors, from images and visible patches to probabilities.

    Args:
        directory: of the export; its head must see CLS alone.
        compiled: whether it goes through `torch.compile`.
    """
    torch.set_num_threads(available_cores())
    config = read_json(directory / "config.json")
    head = load_file(directory / "head.safetensors")
    model = TorchClassifier(load_encoder(directory / "encoder"), head, config["temperature"]).eval()
    run = torch.compile(model, dynamic=False) if compiled else model

    @torch.inference_mode()
    def call(images: np.ndarray, keep: np.ndarray) -> np.ndarray:
        return run(torch.from_numpy(images), torch.from_numpy(keep).long()).numpy()

    return call
