r"""Kills one of the processes of a launched training at a random moment, and counts what survives.

    python -m experiments.kills --trials 20 --out runs/kills.json
    python -m experiments.kills --trials 20 --elastic --out runs/kills-elastic.json

A training on the digits runs once undisturbed, in `--processes` processes that `experiments.launch`
starts with `--max-restarts` and a checkpoint every few rounds. Then, `--trials` times for every
process, it is begun anew and that process is killed with SIGKILL: after a random epoch, or while
all are starting. `same bits`: the launcher ends with 0, and every number of every epoch is the
undisturbed one. `rounding`: losses differ by at most a thousandth. Anything else is `lost`, and its
output is written down. With `--elastic` the training goes on in fewer processes, each of more
workers, so bits are not to be expected. The file is written after every trial, and the same command
goes on with it. Linux. Expected: half a minute for a trial on 2 idle cores.
"""

import dataclasses
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from experiments.bench.hardware import commit, machine
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.trials import print_trials
from experiments.runs.directory import command_line, read_json, write_json
from jist.metrics import read_metrics

SCRIPT = (
    *("experiments.distributed", "--dataset", "digits", "--hidden", "64"),
    *("--local-steps", "5", "--checkpoint-every", "5"),
)
RESTARTS = 3
OUTCOMES = ("same bits", "rounding", "lost")
CLOSE = 1e-3  # of losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class KillsOptions(Options):
    """Options of the trials."""

    processes: int = 4
    """Processes, each with one worker."""
    epochs: int = 60
    """Epochs of the training."""
    trials: int = 20
    """How often each process is killed."""
    elastic: bool = False
    """Go on in as many processes as are left and divide the workers."""
    minutes: float = 600.0
    """How long trials are begun."""
    seed: int = 0
    """Decides the moments."""
    out: pathlib.Path = pathlib.Path("runs/kills.json")
    """Where all trials are written; the same file goes on where it stopped."""


# Options by which trials differ, and what they are by default.
DECIDING = {
    field.name: field.default
    for field in dataclasses.fields(KillsOptions)
    if field.name in ("processes", "epochs", "elastic", "seed")
}


def main(options: KillsOptions) -> None:
    """Tries, writes and prints."""
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"command": command_line(), "commit": commit(), "machine": machine()}
    found |= {name: getattr(options, name) for name in DECIDING} | {"trials": []}
    if options.out.exists():
        before = read_json(options.out)
        for name, default in DECIDING.items():  # older files do not say all
            if before.get(name, default) != found[name]:
                raise UsageError(
                    f"out={options.out} holds trials of --{name} {before.get(name, default)}, got "
                    f"{found[name]}"
                )
        found["trials"] = before["trials"]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        training = Training(pathlib.Path(base), options.processes, options.epochs, options.elastic)
        whole = training.undisturbed()
        for number in range(len(found["trials"]), options.trials * options.processes):
            if time.monotonic() >= end:
                break
            chance = random.Random(f"{options.seed}/{number}")
            trial = training.killed(number % options.processes, chance, whole)
            found["trials"].append(trial | {"commit": found["commit"]})
            write_json(options.out, found)
            print(
                f"process {trial['process']} killed in epoch {trial['epochs_reached'] + 1}: "
                f"{trial['outcome']}",
                flush=True,
            )
    write_json(options.out, found)
    print_trials(found["trials"], "process", "process killed", OUTCOMES)
    print(f"written: {options.out}")


@dataclasses.dataclass(frozen=True)
class Training:
    """The training that is disturbed.

    Attributes:
        base: a directory for its runs, which share features.
        processes: how many it has.
        epochs: how many it has.
        elastic: whether it goes on without the process that was killed.
    """

    base: pathlib.Path
    processes: int
    epochs: int
    elastic: bool = False

    def begun(self, run_dir: pathlib.Path) -> subprocess.Popen[str]:
        """Its launcher."""
        again = ("--max-restarts", str(RESTARTS), *(["--elastic"] if self.elastic else []))
        launcher = ("-n", str(self.processes), *again, "--", *SCRIPT)
        own = ("--workers", str(self.processes), "--epochs", str(self.epochs))
        where = ("--features-dir", str(self.base / "features"), "--run-dir", str(run_dir))
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.launch", *launcher, *own, *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def undisturbed(self) -> tuple[list[dict], float]:
        """Its epochs when nothing happens, and the seconds until the first of them."""
        self.ended(self.begun(self.base / "first"), self.base / "first")  # and features are there
        began, run_dir = time.monotonic(), self.base / "whole"
        launcher = self.begun(run_dir)
        while launcher.poll() is None and not epochs_of(run_dir):
            time.sleep(0.05)
        first = time.monotonic() - began
        return self.ended(launcher, run_dir), first

    def ended(self, launcher: subprocess.Popen[str], run_dir: pathlib.Path) -> list[dict]:
        """Its epochs once it has ended.

        Raises:
            RuntimeError: it has failed.
        """
        said, _ = launcher.communicate()
        if launcher.returncode:
            raise RuntimeError(f"the undisturbed training fails: {' '.join(said.split())[-300:]}")
        return epochs_of(run_dir)

    def killed(
        self, process: int, chance: random.Random, whole: tuple[list[dict], float]
    ) -> dict[str, Any]:
        """One trial.

        Args:
            process: the one that is killed.
            chance: decides when.
            whole: as of `undisturbed`.
        """
        expected, first = whole
        with tempfile.TemporaryDirectory(dir=self.base) as directory:
            run_dir = pathlib.Path(directory, "run")
            after = chance.randrange(self.epochs)
            launcher = self.begun(run_dir)
            time.sleep(0 if after else chance.uniform(0.1, first))
            while launcher.poll() is None and len(epochs_of(run_dir)) < after:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.3) if after else 0)
            reached = len(epochs_of(run_dir))
            hit = kill(launcher.pid, process)
            said, _ = launcher.communicate()
            ended = epochs_of(run_dir)
        outcome = judged(launcher.returncode, ended, expected)
        return {
            "process": process,
            "epochs_reached": reached,
            "killed": hit,
            "restarts": len(re.findall("starting all again", said)),
            "processes_left": [int(left) for left in re.findall(r", in (\d+) processes", said)],
            "last_test_accuracy": ended[-1]["test_accuracy"] if ended else None,
            "undisturbed_test_accuracy": expected[-1]["test_accuracy"],
            "outcome": outcome,
            "exit_code": launcher.returncode,
            "said": said.splitlines()[-20:] if outcome == OUTCOMES[-1] else [],
        }


def kill(launcher: int, process: int) -> bool:
    """Kills one of the processes of a launcher; False if it is not there, or not any more."""
    wanted = f"\0--process-id\0{process}\0"
    for task in pathlib.Path(f"/proc/{launcher}/task").glob("*/children"):
        for child in task.read_text().split():
            if wanted in pathlib.Path(f"/proc/{child}/cmdline").read_text():
                os.kill(int(child), signal.SIGKILL)
                return True
    return False


def epochs_of(run_dir: pathlib.Path) -> list[dict]:
    """What was measured in every epoch, but for the seconds that it took."""
    if not (run_dir / "metrics.jsonl").exists():
        return []
    return [{k: v for k, v in m.items() if k != "seconds"} for m in read_metrics(run_dir)]


def judged(code: int, found: list[dict], expected: list[dict]) -> str:
    """How a training has ended, given its exit code and its epochs."""
    if code == 0 and found == expected:
        return "same bits"
    there, wanted = ([(m["train_loss"], m["test_loss"]) for m in of] for of in (found, expected))
    if code == 0 and len(there) == len(wanted) and np.allclose(there, wanted, CLOSE, 0):
        return "rounding"
    return "lost"


if __name__ == "__main__":
    run(main, KillsOptions, __doc__ or "")
