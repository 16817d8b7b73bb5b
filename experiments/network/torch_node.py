"""A node of a cluster that trains with PyTorch over gloo: rounds, timed one by one.

The same network, examples, order and optimiser as `node`. Data parallel training is
`DistributedDataParallel`; independent subnet training is as the authors' release describes it: one
node cuts all subnets, scatters them, gathers them and pastes.
"""

import functools
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np
import torch
from torch import distributed

from experiments.bench.torch_mlp import OPTIMIZERS, to_arrays, to_device, to_torch
from experiments.bench.torch_workers import Worker
from experiments.command import malloc
from experiments.network.links import INTERFACE, PORT, address
from experiments.network.node import PARAMETERS, Recorder, take_share


def train(job: dict[str, Any], node: int) -> Recorder:
    """Trains some rounds together with the other nodes; the first connects: it is no sample."""
    malloc.keep_freed()
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = INTERFACE
    distributed.init_process_group(
        "gloo", init_method=f"tcp://{address(0)}:{PORT}", rank=node, world_size=job["nodes"]
    )
    OPTIMIZERS["given"] = functools.partial(torch.optim.SGD, lr=job["learning_rate"], fused=True)
    with np.load(job["examples"]) as file:
        examples = to_device(file["x"], file["y"], "cpu")
    with np.load(job["start"]) as file:
        start, orders, parts = (
            [*_numbered(file, "start")],
            file["orders"],
            [*_numbered(file, "parts")],
        )
    worker = Worker(node, job["nodes"], to_torch(start, "cpu"), examples, "given")
    del start
    recorder = Recorder()
    for number in range(job["rounds"]):
        rows = orders[number, node]
        hands = [layer[number] for layer in parts]

        def work(rows: np.ndarray = rows, hands: Any = hands) -> dict[str, Any]:
            match job["strategy"]:
                case "ist":
                    loss = worker.server(hands, rows)
                case "local_sgd":
                    loss = worker.local_sgd(rows)
                case _:
                    loss = worker.data_parallel(rows)
            return {"loss": float(loss)}

        distributed.barrier()
        recorder.measure(work)
        if number == 0:
            take_share()
        if node == 0 and number + 1 == job["check_rounds"]:
            np.savez(pathlib.Path(job["directory"]) / PARAMETERS, *to_arrays(worker.parameters))
    return recorder


def _numbered(file: Any, name: str) -> list[np.ndarray]:
    count = sum(key.startswith(name) for key in file.files)
    return [file[f"{name}{number}"] for number in range(count)]


def main(file: str) -> None:
    """Trains and writes what was measured."""
    job, node = json.loads(pathlib.Path(file).read_text()), int(os.environ["NODE"])
    train(job, node).write(pathlib.Path(job["directory"]), node)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
