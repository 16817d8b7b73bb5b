"""The classifier head of jist in PyTorch, its training, and subnets of it.

Written as fast as PyTorch's own means allow: weights in PyTorch's order, standardisation by its
fused batch normalisation, its fused optimisers, nothing read back between steps. Nothing of jist
or JAX is imported, so that processes that play workers start fast.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Of every layer its weight [out, in], then the bias of the last: hidden layers have none.
Parameters = list[Tensor]
Arrays = list[np.ndarray]  # the same as jist keeps them: kernels [in, out], then the bias
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": functools.partial(torch.optim.Adam, lr=1e-3, fused=True),
    "sgd": functools.partial(torch.optim.SGD, lr=1e-2, fused=True),
}


def logits(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """Logits [B, C] of the features x [B, D], hidden neurons standardised over the batch."""
    *hidden, last, bias = parameters
    for weight in hidden:
        z = functional.linear(x, weight)
        # The biased variance and an epsilon of 1e-5, as jist has it.
        x = functional.batch_norm(z, None, None, training=True).relu()
    return functional.linear(x, last, bias)


def mean_loss(parameters: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of a batch, in nats."""
    return functional.cross_entropy(logits(parameters, x), y)


def take_steps(
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    order: Tensor,
) -> Tensor:
    """Optimiser steps on the rows [steps, B] of the examples; the mean of their losses."""
    total = torch.zeros((), device=x.device)
    for rows in order:
        value = loss(x[rows], y[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += value.detach()
    return total / len(order)


class TorchHead:
    """One worker trains the whole network.

    Args:
        arrays: initial values.
        x: features [N, D].
        y: classes [N].
        optimizer: "adam" or "sgd".
        device: "cpu" or "cuda".
        compiled: whether loss and gradients go through `torch.compile`, on a GPU as CUDA graphs.
    """

    def __init__(
        self,
        arrays: Arrays,
        x: np.ndarray,
        y: np.ndarray,
        *,
        optimizer: str,
        device: str,
        compiled: bool,
    ):
        self._x, self._y = to_device(x, y, device)
        self._parameters = [p.requires_grad_() for p in to_torch(arrays, device)]
        self._optimizer = OPTIMIZERS[optimizer](self._parameters)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return mean_loss(self._parameters, x, y)

        self._loss = compile_loss(loss, device) if compiled else loss

    def __call__(self, order: np.ndarray) -> float:
        """Trains on the rows [steps, B]; the mean loss, once it is known."""
        rows = torch.from_numpy(order.astype(np.int64)).to(self._x.device)
        return float(take_steps(self._loss, self._optimizer, self._x, self._y, rows))

    def arrays(self) -> Arrays:
        """The parameters as jist keeps them."""
        return to_arrays(self._parameters)


def compile_loss(loss: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """A loss of a batch, and its gradients, through `torch.compile`, on a GPU as CUDA graphs.

    There its results last until its next call.
    """
    torch.compiler.reset()  # else a second one of the same shapes would cost no time
    if device != "cuda":
        return torch.compile(loss, dynamic=False)
    graphs = torch.compile(loss, dynamic=False, mode="reduce-overhead")

    def step(*batch: Tensor) -> Tensor:
        # The results of the last step are used up: the graphs may write over them.
        torch.compiler.cudagraph_mark_step_begin()
        return graphs(*batch)

    return step


class TorchSubnets:
    """Rounds of independent subnet training, one worker after the other in one process.

    Args and `arrays` as of `TorchHead`; the optimiser is made anew for every subnet.
    """

    def __init__(
        self, arrays: Arrays, x: np.ndarray, y: np.ndarray, *, optimizer: str, device: str
    ):
        self._x, self._y = to_device(x, y, device)
        self._parameters = to_torch(arrays, device)
        self._optimizer = optimizer

    def __call__(self, parts: Sequence[np.ndarray], order: np.ndarray) -> float:
        """A round.

        Args:
            parts: of every hidden layer the neurons of each worker [workers, part].
            order: rows of the examples [workers, steps, B].

        Returns:
            The mean loss of all workers.
        """
        hands = [torch.from_numpy(part.astype(np.int64)).to(self._x.device) for part in parts]
        rows = torch.from_numpy(order.astype(np.int64)).to(self._x.device)
        subnets, losses = [], []
        for worker in range(len(rows)):
            subnet = cut(self._parameters, [hand[worker] for hand in hands])
            losses.append(train_subnet(subnet, self._optimizer, self._x, self._y, rows[worker]))
            subnets.append(subnet)
        paste(self._parameters, subnets, hands)
        return float(torch.stack(losses).mean())

    def arrays(self) -> Arrays:
        """The parameters as jist keeps them."""
        return to_arrays(self._parameters)


def train_subnet(subnet: Parameters, optimizer: str, x: Tensor, y: Tensor, order: Tensor) -> Tensor:
    """Trains parameters in place on the rows [steps, B], by an optimiser of their own."""
    trained = [p.requires_grad_() for p in subnet]
    loss = functools.partial(mean_loss, trained)
    return take_steps(loss, OPTIMIZERS[optimizer](trained), x, y, order)


def cut(parameters: Parameters, hand: Sequence[Tensor]) -> Parameters:
    """The subnet of the neurons that a worker holds of every hidden layer, a copy."""
    *weights, bias = parameters
    subnet = []
    for weight, before, after in zip(weights, [None, *hand], [*hand, None], strict=True):
        piece = weight if after is None else weight.index_select(0, after)
        subnet.append(piece if before is None else piece.index_select(1, before))
    return [*subnet, bias.clone()]


@torch.no_grad()
def paste(parameters: Parameters, subnets: Sequence[Parameters], hands: Sequence[Tensor]) -> None:
    """Puts trained subnets back in place; the bias, which all have, is averaged.

    Args:
        parameters: of the full network.
        subnets: of every worker.
        hands: of every hidden layer the neurons of each worker [workers, part].
    """
    for worker, subnet in enumerate(subnets):
        hand = [part[worker] for part in hands]
        first, *between, last = zip(parameters[:-1], subnet[:-1], strict=True)
        first[0].index_copy_(0, hand[0], first[1])
        for (weight, piece), before, after in zip(between, hand[:-1], hand[1:], strict=True):
            weight[after[:, None], before] = piece
        last[0].index_copy_(1, hand[-1], last[1])
    parameters[-1].copy_(torch.stack([subnet[-1] for subnet in subnets]).mean(0))


def pack(pieces: Sequence[Tensor]) -> Tensor:
    """All numbers in one row, to travel together."""
    return torch.cat([piece.detach().flatten() for piece in pieces])


def unpack(row: Tensor, like: Sequence[Tensor]) -> Parameters:
    """The pieces of a row again, in the shapes of others."""
    ends = [0, *itertools.accumulate(piece.numel() for piece in like)]
    return [
        row[start:end].view(piece.shape)
        for piece, (start, end) in zip(like, itertools.pairwise(ends), strict=True)
    ]


def to_device(x: np.ndarray, y: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Features [N, D] and classes [N] as tensors."""
    return torch.from_numpy(x).to(device), torch.from_numpy(y.astype(np.int64)).to(device)


def to_torch(arrays: Arrays, device: str) -> Parameters:
    """Parameters in PyTorch's order, copies."""
    return [torch.from_numpy(a.T.copy()).to(device) for a in arrays]


def to_arrays(parameters: Sequence[Tensor]) -> Arrays:
    """Parameters as jist keeps them, copies."""
    return [np.array(p.detach().cpu().numpy().T) for p in parameters]
