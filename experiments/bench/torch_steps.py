"""Steps of AdamW in PyTorch on examples in memory, as its own means make them fastest.

AdamW is the fused one, and nothing is read back between steps. As in jist, parameters, their
moments and the loss are float32 whatever the compute type, and everything between is of that type.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from experiments.bench.torch_mlp import compile_loss


class TorchSteps:
    """Steps of AdamW of a model that maps a batch to its loss.

    Args:
        model: on its device.
        examples: tensors [N, ...] on the same device, of which it is given the rows of a batch.
        groups: of parameters, as PyTorch's optimisers take them; "scale" is a factor of the rate.
        rates: the learning rate of every step.
        betas: of AdamW.
        dtype: compute type, "float32" or "bfloat16".
        compiled: whether loss and gradients go through `torch.compile`, on a GPU as CUDA graphs.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Sequence[Tensor],
        groups: list[dict[str, Any]],
        rates: Sequence[float],
        *,
        betas: tuple[float, float],
        dtype: str,
        compiled: bool,
    ):
        self._examples, self._rates, self._taken = examples, rates, 0
        self._optimizer = torch.optim.AdamW(groups, betas=betas, eps=1e-8, fused=True)

        def loss(*batch: Tensor) -> Tensor:
            # Gradients reach the float32 parameters through the rounding.
            rounded = {name: p.to(getattr(torch, dtype)) for name, p in model.named_parameters()}
            return functional_call(model, rounded, batch)

        self._loss = compile_loss(loss, examples[0].device.type) if compiled else loss

    def __call__(self, order: np.ndarray) -> np.ndarray:
        """Takes steps on the rows of `order` [steps, B]; their losses, once done."""
        losses = []
        for rows in torch.from_numpy(order.astype(np.int64)).to(self._examples[0].device):
            # Only times are wanted beyond the schedule, whose last rate stays.
            rate = self._rates[min(self._taken, len(self._rates) - 1)]
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
            loss = self._loss(*(tensor[rows] for tensor in self._examples))
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            losses.append(loss.detach().clone())  # CUDA graphs write over it
            self._taken += 1
        return torch.stack(losses).cpu().numpy()


def on_device(
    images: np.ndarray, keep: np.ndarray, device: str, *others: np.ndarray
) -> tuple[Tensor, ...]:
    """Examples as tensors on a device.

    Args:
        images: pixels [N, S, S, C], u8; channels first afterwards, the order PyTorch is used to.
        keep: kept patches of each [N, K].
        device: "cpu" or "cuda".
        *others: integers [N, ...], such as classes.
    """
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    integers = (torch.from_numpy(array.astype(np.int64)).to(device) for array in (keep, *others))
    return pixels, *integers
