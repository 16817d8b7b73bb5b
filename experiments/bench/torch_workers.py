"""n workers in PyTorch, a process each, that talk over gloo.

The processes are started once and told by pipes what to do, so that their start is not timed. Each
holds the full network, as in jist's replicated exchange and in data parallel training. It keeps the
memory that it frees, as the process does in which jist runs.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import socket
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from experiments.bench.torch_mlp import (
    OPTIMIZERS,
    Arrays,
    Parameters,
    cut,
    mean_loss,
    pack,
    paste,
    take_steps,
    to_arrays,
    to_device,
    to_torch,
    train_subnet,
    unpack,
)
from experiments.command import malloc

START, ARRAYS = "start.npz", "arrays.npz"


@dataclasses.dataclass(frozen=True)
class Failure:
    """What a process answers that cannot do what it is told, and ends."""

    why: str


class TorchWorkers(contextlib.ExitStack):
    """The processes, seen from the one that commands them; to be used in a `with`.

    Args:
        workers: number of workers n.
        arrays: initial values.
        x: features [N, D].
        y: classes [N].
        optimizer: "adam" or "sgd".

    Raises:
        RuntimeError: from every method, if a process has failed or ended.
    """

    def __init__(
        self, workers: int, arrays: Arrays, x: np.ndarray, y: np.ndarray, *, optimizer: str
    ):
        super().__init__()
        self._folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        np.savez(self._folder / START, x, y, *arrays)
        context = _context()
        threads = max(1, _available_cores() // workers)
        self._pipes: list[Connection] = []
        for rank in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_worker,
                args=(theirs, rank, workers, threads, str(self._folder), optimizer),
                daemon=True,
            )
            process.start()
            theirs.close()  # so that ours tells when the process has ended
            self.callback(process.join)
            self.callback(ours.close)  # upon which the process ends
            self._pipes.append(ours)
        self._each("ready", [()] * workers)

    def ist(self, parts: Sequence[np.ndarray], order: np.ndarray, *, server: bool = False) -> float:
        """A round of independent subnet training.

        Args:
            parts: of every hidden layer the neurons of each worker [workers, part].
            order: rows of the examples [workers, steps, B].
            server: whether the first process sends out the subnets and takes them back, alone;
                else all pieces are gathered, and pasted, by everybody.

        Returns:
            The mean loss of all workers.
        """
        return self._train("server" if server else "ist", [(parts, rows) for rows in order])

    def data_parallel(self, order: np.ndarray) -> float:
        """Steps of `DistributedDataParallel`; else as `ist`."""
        return self._train("data_parallel", [(rows,) for rows in order])

    def local_sgd(self, order: np.ndarray) -> float:
        """A round of local SGD, parameters averaged at its end; else as `ist`."""
        return self._train("local_sgd", [(rows,) for rows in order])

    def arrays(self) -> Arrays:
        """The parameters of the first process as jist keeps them."""
        self._each("save", [()] * len(self._pipes))
        with np.load(self._folder / ARRAYS) as file:
            return [*file.values()]

    def _train(self, command: str, arguments: Sequence[tuple]) -> float:
        return float(np.mean(self._each(command, arguments)))

    def _each(self, command: str, arguments: Sequence[tuple]) -> list[Any]:
        """Tells every process what to do, and waits for all answers."""
        answers = []
        for pipe, own in zip(self._pipes, arguments, strict=True):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                pipe.send((command, *own))
        for pipe in self._pipes:
            try:
                answers.append(pipe.recv())
            except (EOFError, ConnectionResetError):
                answers.append(Failure("it ended without a word"))
        failures = [answer.why for answer in answers if isinstance(answer, Failure)]
        if failures:
            raise RuntimeError(
                f"a PyTorch process failed while told {command!r}: {'; '.join(failures)}"
            )
        return answers


def _context() -> Any:
    """Starts processes: where it can, by forking one that has imported PyTorch, once for all."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Else the first step of an optimiser would import the second in every process.
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    return context


def _available_cores() -> int:
    """As `jist.placement.available_cores`; of jist nothing is imported here."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _worker(
    pipe: Connection, rank: int, workers: int, threads: int, folder: str, optimizer: str
) -> None:
    malloc.keep_freed()
    torch.set_num_threads(threads)
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=workers
    )
    with np.load(f"{folder}/{START}") as file:
        x, y, *arrays = file.values()
    own = Worker(rank, workers, to_torch(arrays, "cpu"), to_device(x, y, "cpu"), optimizer)
    del arrays
    with contextlib.suppress(EOFError):  # of a pipe that is closed: no more to do
        while True:
            command, *arguments = pipe.recv()
            try:
                if command == "save" and rank == 0:
                    np.savez(f"{folder}/{ARRAYS}", *to_arrays(own.parameters))
                known = hasattr(own, command)
                answer = float(getattr(own, command)(*arguments)) if known else None
            except Exception as error:
                pipe.send(Failure(f"{type(error).__name__}: {error}"))
                raise
            pipe.send(answer)
    distributed.destroy_process_group()


class Worker:
    """What a process does upon each command; returns its mean loss.

    Args:
        rank: which of the processes it is.
        workers: number of workers n.
        parameters: initial values.
        examples: features [N, D] and classes [N].
        optimizer: a name in `OPTIMIZERS`.
    """

    def __init__(
        self,
        rank: int,
        workers: int,
        parameters: Parameters,
        examples: tuple[Tensor, Tensor],
        optimizer: str,
    ):
        self.parameters = parameters
        self._rank, self._workers, self._examples = rank, workers, examples
        self._optimizer = optimizer

    def ist(self, parts: Sequence[np.ndarray], rows: np.ndarray) -> Tensor:
        """A round of independent subnet training; everybody gathers all pieces."""
        hands = [_indices(part) for part in parts]
        subnet = cut(self.parameters, [hand[self._rank] for hand in hands])
        loss = train_subnet(subnet, self._optimizer, *self._examples, _indices(rows))
        own = pack(subnet)
        everyones = torch.empty(self._workers, len(own))
        distributed.all_gather([*everyones], own)
        paste(self.parameters, [unpack(row, subnet) for row in everyones], hands)
        return loss

    def server(self, parts: Sequence[np.ndarray], rows: np.ndarray) -> Tensor:
        """The same; the first process scatters the subnets and gathers them, alone."""
        hands = [_indices(part) for part in parts]
        mine = [hand[self._rank] for hand in hands]
        if self._rank == 0:
            subnets = [
                cut(self.parameters, [hand[worker] for hand in hands])
                for worker in range(self._workers)
            ]
            own = pack(subnets[0])
            distributed.scatter(own, [pack(subnet) for subnet in subnets])
            like: Sequence[Tensor] = subnets[0]
        else:
            like = self._shapes(mine)
            own = torch.empty(sum(piece.numel() for piece in like))
            distributed.scatter(own)
        subnet = unpack(own, like)
        loss = train_subnet(subnet, self._optimizer, *self._examples, _indices(rows))
        own = pack(subnet)
        if self._rank == 0:
            back = [torch.empty_like(own) for _ in range(self._workers)]
            distributed.gather(own, back)
            paste(self.parameters, [unpack(row, subnet) for row in back], hands)
        else:
            distributed.gather(own)
        return loss

    def data_parallel(self, rows: np.ndarray) -> Tensor:
        """Steps of `DistributedDataParallel` on the rows [steps, B]."""
        loss, optimizer = self._data_parallel
        return take_steps(loss, optimizer, *self._examples, _indices(rows))

    def local_sgd(self, rows: np.ndarray) -> Tensor:
        """A round of local SGD, parameters averaged at its end."""
        loss = train_subnet(self.parameters, self._optimizer, *self._examples, _indices(rows))
        with torch.no_grad():
            for parameter in self.parameters:
                distributed.all_reduce(parameter)
                parameter /= self._workers
        return loss

    @functools.cached_property
    def _data_parallel(self) -> tuple[Any, torch.optim.Optimizer]:
        network = _Network(self.parameters)
        everyones = DistributedDataParallel(network, gradient_as_bucket_view=True)
        return everyones, OPTIMIZERS[self._optimizer](network.parameters())

    def _shapes(self, hand: Sequence[Tensor]) -> Parameters:
        """Shapes of a subnet, without its numbers."""
        on_paper = [p.to("meta") for p in self.parameters]
        return cut(on_paper, [part.to("meta") for part in hand])


class _Network(nn.Module):
    """The loss as a module, which `DistributedDataParallel` asks for; parameters are shared."""

    def __init__(self, parameters: Parameters):
        super().__init__()
        self._values = nn.ParameterList(nn.Parameter(p.detach()) for p in parameters)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return mean_loss([*self._values], x, y)


def _indices(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
