r"""Training over slow links: the time to an accuracy on an emulated cluster, beside PyTorch.

    python -m experiments.network --dataset digits --mask-ratio 0.5 --hidden 256 --nodes 2 \
        --bandwidth 100mbit --delay 0ms --targets 0.5 0.7 --run-dir runs/network

    python -m experiments.network --dataset speech:data/speech_commands --preset speech-2-layer \
        --nodes 2 4 8 --bandwidth 1gbit 100mbit --torch data_parallel local_sgd ist ...

Every node is a process in a network namespace of its own; a bridge joins them, and `tc` shapes each
link in both directions. Nodes train as `experiments.distributed` does. Needs Linux, iproute2, and
root or unprivileged user namespaces; more nodes than cores need control groups (root). With more
nodes than cores time is dilated by k: a node has 1/k of a core, a link 1/k of its rate and k times
its delay, and seconds are divided by k. Before every cell all links must reach their rate within
5 %.

VLDB 2022, Table 1 and Figure 2. What a training learns does not depend on the link: accuracy after
every round is computed once, in one process, and the nodes' losses must agree with it. Accuracies
are of the test examples, as in the paper; with `--learning-rates` each strategy has the rate that
suits it on held-out training examples. Writes `results.json`, `figure-2.png` and `map.png`; what an
earlier call has measured is kept. Expected for the first command: four minutes on two CPU cores.
"""

import dataclasses
import json
import sys
from typing import Any

import numpy as np

from experiments.bench.hardware import commit, has_torch, machine
from experiments.command.cli import run
from experiments.command.errors import UsageError
from experiments.command.options import BATCH_SIZE, HeadOptions, ImageOptions, pick
from experiments.figures import png
from experiments.network import namespaces, picture, report
from experiments.network.cells import JIST, TORCH, Cell, measure
from experiments.network.cluster import Cluster
from experiments.network.curves import curve
from experiments.network.links import UNSHAPED, Link, dilation, parse_delay, parse_rate
from experiments.network.options import NetworkOptions
from experiments.network.rates import choose
from experiments.network.tables import print_table
from experiments.network.training import Training
from experiments.runs.directory import differences, lock, read_json, write_json
from experiments.runs.images import progress_bar
from experiments.runs.inputs import open_inputs
from jist.placement import available_cores

LEAST = 3  # rounds where nothing holds the links back
# What may differ between calls that share a directory.
GROWING = ("nodes", "bandwidth", "strategies", "torch", "run_dir", "debug", "features_dir")


def main(options: NetworkOptions) -> None:
    """Computes the curves, measures the cells, and writes what came out after each of them."""
    problem = namespaces.refusal(parse_delay(options.delay))
    if problem:
        raise RuntimeError(problem)
    if options.torch and not has_torch():
        raise UsageError("--torch needs PyTorch, which is not installed (the `test` extra)")
    lock(options.run_dir)
    check_config(options)
    data = load_examples(options)
    train = {"x": data["x"], "y": data["y"]}
    test = {"x": data["test_x"], "y": data["test_y"]}
    curves: dict[str, Any] = {}
    rates: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for nodes in options.nodes:
        for strategy in dict.fromkeys((*options.strategies, *options.torch)):
            training = Training(
                head=pick(options, HeadOptions),
                how=options.how(strategy, nodes),
                seed=options.seed,
                classes=int(data["classes"]),
                examples=train,
            )
            name = f"{strategy}-{nodes}"
            if options.learning_rates:
                training, rates[name] = at_its_rate(training, options, name)
            print(f"{name}: accuracy after every round", flush=True)
            file = options.run_dir / "curves" / f"{name}.json"
            curves[name] = curve(training, test, max(options.targets), file)
            for cell in cells_of(options, strategy, nodes):
                print(f"{cell.name}: {len(curves[name]['losses'])} rounds", flush=True)
                k = options.dilation or dilation(nodes, available_cores())
                link = Link(parse_rate(cell.bandwidth), parse_delay(options.delay))
                if cell.bandwidth == UNSHAPED:
                    link = Link(link.rate)
                most = LEAST if cell.bandwidth == UNSHAPED else options.timed_rounds
                found.append(
                    measure(
                        cell,
                        Cluster(nodes=nodes, link=link, k=k),
                        training,
                        curves[name],
                        options.run_dir,
                        most_rounds=most,
                    )
                )
                shape = train["x"].shape[1], int(data["classes"])
                write_results(options, found, curves, rates, *shape)
    print_table(report.table(found, curves, options.targets), options.targets)
    print(f"written: {options.run_dir}/results.json, figure-2.png, map.png")


def at_its_rate(
    training: Training, options: NetworkOptions, name: str
) -> tuple[Training, dict[str, Any]]:
    """A training at the learning rate that held-out examples choose, and what was tried."""
    directory = options.run_dir / "rates" / name
    print(f"{name}: learning rates {options.learning_rates}", flush=True)
    rate, tried = choose(training, options.learning_rates, max(options.targets), directory)
    print(f"{name}: learning rate {rate:g}", flush=True)
    head = dataclasses.replace(training.head, learning_rate=rate)
    return dataclasses.replace(training, head=head), {"chosen": rate, "tried": tried}


def cells_of(options: NetworkOptions, strategy: str, nodes: int) -> list[Cell]:
    """The cells of a training; jist's first without shaping, for the model's step."""
    links = {
        JIST: (UNSHAPED, *options.bandwidth) if strategy in options.strategies else (),
        TORCH: options.bandwidth if strategy in options.torch else (),
    }
    return [
        Cell(variant, strategy, nodes, bandwidth)
        for variant, bandwidths in links.items()
        for bandwidth in dict.fromkeys(bandwidths)
    ]


def check_config(options: NetworkOptions) -> None:
    """Keeps results of other options out of the directory.

    Raises:
        ValueError: it holds some.
    """
    file = options.run_dir / "config.json"
    here = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    here = {name: value for name, value in here.items() if name not in GROWING}
    if not file.exists():
        write_json(file, here)
    elif found := differences(read_json(file), here):
        raise UsageError(
            f"{options.run_dir} holds results of other options: {'; '.join(found)}; choose another "
            "--run-dir"
        )


def load_examples(options: NetworkOptions) -> dict[str, np.ndarray]:
    """Features of both splits, also in `examples.npz`, from which the nodes read them.

    Raises:
        ValueError: the examples have several labels each.
    """
    file = options.run_dir / "examples.npz"
    if not file.exists():
        images = pick(options, ImageOptions)
        inputs = open_inputs(images)
        with progress_bar() as progress:
            directory = options.features_dir or options.run_dir / "features"
            splits = inputs.splits(images.ratio, directory, progress)
        if any(split.label is None for split in splits.values()):
            raise UsageError(f"dataset={options.dataset} has several labels for an example")
        train, test = (splits[name].examples() for name in ("train", "test"))
        part = file.with_name("examples.part.npz")
        arrays = {"x": train["x"], "y": train["y"], "test_x": test["x"], "test_y": test["y"]}
        found = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez(part, allow_pickle=False, classes=np.array(inputs.outputs), **found)
        part.rename(file)
    with np.load(file) as saved:
        return dict(saved)


def write_results(
    options: NetworkOptions,
    cells: list[dict[str, Any]],
    curves: dict[str, Any],
    rates: dict[str, Any],
    inputs: int,
    classes: int,
) -> None:
    """Writes `results.json` and the figures."""
    line = report.line_of_steps(cells, curves)
    results: dict[str, Any] = {
        "command": " ".join(["python -m experiments.network", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "config": read_json(options.run_dir / "config.json"),
        "table": report.table(cells, curves, options.targets),
        "curves": curves,
        **({"learning_rates": rates} if rates else {}),
        "cells": cells,
    }
    if any(cell["bandwidth"] != UNSHAPED for cell in cells):
        drawn = picture.figure_2(cells, curves, options.targets)
        png.write(drawn, options.run_dir / "figure-2.png")
    if line is not None:
        widths = (inputs, *options.hidden, classes)
        batch = options.batch_size or BATCH_SIZE
        ratios = report.steps_ratios(curves, options.targets)
        drawn, speed_ups = picture.speed_up_map(
            widths, options.local_steps, batch, line, parse_delay(options.delay), ratios
        )
        png.write(drawn, options.run_dir / "map.png")
        results["map"] = {
            "seconds_of_a_step": {"at_zero": line[0], "per_flop": line[1]},
            "steps_ratios": ratios,
            "nodes": picture.NODES,
            "rates": picture.RATES,
            "speed_ups": speed_ups,
        }
    write_json(options.run_dir / "results.json", results)


if __name__ == "__main__":
    run(main, NetworkOptions, __doc__ or "")
