"""The network of sparse features and many labels in PyTorch, by the means that it has for them.

`nn.EmbeddingBag` sums rows of the first kernel, with a sparse gradient, so that plain SGD touches
the used rows alone; the output layer is dense, and its loss needs all logits and all targets.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jist.ragged import Ragged


class TorchSparse:
    """One worker trains the whole network by plain SGD.

    Args:
        arrays: kernels [in, out] of both layers and the bias of the last; the first is used as it
            lies, and written over.
        x: rows of {"indices", "values"}.
        y: labels of each example.
        lr: learning rate.
    """

    def __init__(self, arrays: Sequence[np.ndarray], x: Ragged, y: Ragged, *, lr: float):
        first, last, bias = (torch.from_numpy(array) for array in arrays)
        self._x, self._y = x, y
        self._first = nn.EmbeddingBag.from_pretrained(first, freeze=False, mode="sum", sparse=True)
        self._last = [last.T.contiguous().requires_grad_(), bias.requires_grad_()]
        self._optimizers = [
            torch.optim.SGD(self._first.parameters(), lr=lr),
            torch.optim.SGD(self._last, lr=lr, fused=True),
        ]

    def __call__(self, order: np.ndarray) -> float:
        """Trains on the rows [steps, B]; the mean loss."""
        return float(np.mean([self._step(rows) for rows in order]))

    def arrays(self) -> list[np.ndarray]:
        """The parameters as jist keeps them."""
        last, bias = (parameter.detach().numpy() for parameter in self._last)
        return [self._first.weight.detach().numpy().copy(), last.T.copy(), bias.copy()]

    def _step(self, rows: np.ndarray) -> float:
        x, y = self._x.rows(rows), self._y.rows(rows)
        offsets = torch.from_numpy(x.offsets[:-1].astype(np.int64))
        indices = torch.from_numpy(x.entries["indices"].astype(np.int64))
        z = self._first(indices, offsets, torch.from_numpy(x.entries["values"]))
        hidden = functional.batch_norm(z, None, None, training=True).relu()
        logits = functional.linear(hidden, *self._last)
        loss = functional.binary_cross_entropy_with_logits(
            logits, self._targets(y, logits), reduction="sum"
        ) / len(rows)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        return float(loss.detach())

    def _targets(self, y: Ragged, logits: Tensor) -> Tensor:
        row = np.repeat(np.arange(len(y)), np.diff(y.offsets))
        targets = torch.zeros_like(logits)
        targets[torch.from_numpy(row), torch.from_numpy(y.entries.astype(np.int64))] = 1
        return targets
