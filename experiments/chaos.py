r"""Kills, fills, damages and resumes small trainings, and counts what survives.

    python -m experiments.chaos --minutes 10 --out runs/chaos.json

A training on the digits runs once undisturbed. Then, in every trial, a copy of it is begun, killed
with SIGKILL after a random epoch, damaged in a random way, and started again by the same command;
or no file may grow beyond a random size (`no space left`), which it has to tell, and may in the
second call. `same bits`: it ends with the undisturbed metrics in every epoch. `told`: it stops with
one line and exit code 1, so that nothing false comes out. Anything else is `lost`, and its output
is written down. Features are there already but where the kill falls before the first epoch.
Expected: as long as `--minutes` says, 4 trials a minute on 2 CPU cores.
"""

import dataclasses
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.bench.hardware import commit, machine
from experiments.command.cli import Options, run
from experiments.figures.trials import print_trials
from experiments.runs.directory import command_line, write_json
from jist.metrics import read_metrics

COMMAND = (
    *("-m", "experiments.distributed", "--dataset", "digits", "--hidden", "64", "--workers", "2"),
    *("--local-steps", "5"),
)
OUTCOMES = ("same bits", "told", "lost")
FULL = "no space left"
# Limits itself, and becomes another program. (JAX objects to a fork, which could do it, too.)
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(sys.argv[1]),))
os.execv(sys.argv[2], sys.argv[2:])
"""
FULL_BYTES = (3.0, 5.9)  # powers of ten: from less than a config.json to a chunk of features


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChaosOptions(Options):
    """Options of the trials."""

    epochs: int = 40
    """Epochs of the training."""
    minutes: float = 10.0
    """How long trials are begun."""
    seed: int = 0
    """Decides moments and damages."""
    out: pathlib.Path = pathlib.Path("runs/chaos.json")
    """Where all trials are written."""


def main(options: ChaosOptions) -> None:
    """Tries, counts, prints and writes."""
    chance = random.Random(options.seed)
    found: dict[str, Any] = {"command": command_line(), "commit": commit(), "machine": machine()}
    found["trials"] = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        training = (*COMMAND, "--epochs", str(options.epochs), "--run-dir")
        whole, run_dir = pathlib.Path(base, "whole"), pathlib.Path(base, "trial")
        start, child = time.monotonic(), begun(training, whole)
        wait_for(child, whole, 1)
        first = time.monotonic() - start
        code, said = ended(child)
        if code != 0:
            raise RuntimeError(
                f"the undisturbed training ends with exit code {code}: {said[-300:]}"
            )
        expected = curve(whole)
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            name, after = chance.choice([FULL, *DAMAGES]), chance.randrange(options.epochs)
            shutil.rmtree(run_dir, ignore_errors=True)
            if after:
                shutil.copytree(whole / "features", run_dir / "features")
            moment = (after, chance.uniform(0.1, 0.3 if after else first))
            trial = attempt(training, run_dir, name, moment, expected, chance)
            found["trials"].append(trial)
            write_json(options.out, found)
            print(f"{name}, after epoch {trial['epochs_reached']}: {trial['outcome']}", flush=True)
    write_json(options.out, found)
    print_trials(found["trials"], "damage", "damage beside the kill", OUTCOMES)
    print(f"written: {options.out}")


def attempt(
    command: Sequence[str],
    run_dir: pathlib.Path,
    name: str,
    moment: tuple[int, float],
    expected: list,
    chance: random.Random,
) -> dict:
    """One trial.

    Args:
        command: of the training.
        run_dir: its directory.
        name: of the damage.
        moment: the epoch after which it is killed, and so many seconds later.
        expected: the undisturbed curve.
        chance: decides the damage.
    """
    full = name == FULL
    child = begun(command, run_dir, round(10 ** chance.uniform(*FULL_BYTES)) if full else None)
    if not full:
        wait_for(child, run_dir, moment[0])
        time.sleep(moment[1])
        child.kill()
    code, said = ended(child)
    reached = len(curve(run_dir))
    hit = code != 0 if full else DAMAGES[name](run_dir, chance)
    lost = full and code != 0 and not tells(code, said)
    if not lost:
        code, said = ended(begun(command, run_dir))
    if not lost and code == 0 and curve(run_dir) == expected:
        outcome = OUTCOMES[0]
    else:
        outcome = OUTCOMES[1] if not lost and tells(code, said) else OUTCOMES[2]
    return {
        "damage": name if hit else "none: nothing there yet",
        "epochs_reached": reached,
        "outcome": outcome,
        "said": said.splitlines()[-5:] if outcome != OUTCOMES[0] else [],
    }


def tells(code: int, said: str) -> bool:
    """Whether a training that failed says why in one line."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    return code == 1 and len(errors) == 1 and "Traceback" not in said


def begun(
    command: Sequence[str], run_dir: pathlib.Path, most_bytes: int | None = None
) -> subprocess.Popen[str]:
    """The training, of which no file may grow beyond `most_bytes`."""
    limited = [] if most_bytes is None else ["-c", LIMITED, str(most_bytes), sys.executable]
    return subprocess.Popen(
        [sys.executable, *limited, *command, str(run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(child: subprocess.Popen[str], run_dir: pathlib.Path, epochs: int) -> None:
    """Waits until a training has so many epochs, or has ended."""
    while child.poll() is None and len(curve(run_dir)) < epochs:
        time.sleep(0.02)


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what it said."""
    said, _ = child.communicate()
    return child.returncode, said


def curve(run_dir: pathlib.Path) -> list[tuple[int, float, float]]:
    """Epoch, training loss and test loss of every epoch."""
    return [(m["epoch"], m["train_loss"], m["test_loss"]) for m in read_metrics(run_dir)]


def _last_checkpoint(run_dir: pathlib.Path) -> pathlib.Path | None:
    found = [path for path in run_dir.glob("checkpoints/*/*") if path.name.isdigit()]
    return max(found, key=lambda path: int(path.name), default=None)


def _files(path: pathlib.Path | None, pattern: str = "*") -> list[pathlib.Path]:
    return [] if path is None else sorted(p for p in path.rglob(pattern) if p.is_file())


def _cut(files: list[pathlib.Path], chance: random.Random) -> bool:
    """Cuts one of some files short."""
    for file in chance.sample(files, min(1, len(files))):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return bool(files)


def _flip(files: list[pathlib.Path], chance: random.Random) -> bool:
    """Flips a bit of one of some files."""
    files = [file for file in files if file.stat().st_size]
    for file in chance.sample(files, min(1, len(files))):
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
    return bool(files)


def _remove(files: list[pathlib.Path], chance: random.Random) -> bool:
    """Removes one of some files."""
    for file in chance.sample(files, min(1, len(files))):
        file.unlink()
    return bool(files)


def _state(run_dir: pathlib.Path) -> list[pathlib.Path]:
    last = _last_checkpoint(run_dir)
    return _files(None if last is None else last / "state")


def _chunks(run_dir: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in _files(run_dir / "features") if "c" in path.parts[-3:]]


Damage = Callable[[pathlib.Path, random.Random], bool]
DAMAGES: dict[str, Damage] = {
    "nothing": lambda run_dir, chance: True,
    "checkpoint cut short": lambda run_dir, chance: _cut(_state(run_dir), chance),
    "bit flipped in checkpoint": lambda run_dir, chance: _flip(_state(run_dir), chance),
    "file of checkpoint removed": lambda run_dir, chance: _remove(_state(run_dir), chance),
    "metrics of checkpoint cut short": lambda run_dir, chance: _cut(
        _files(_last_checkpoint(run_dir), "metrics"), chance
    ),
    "chunk of features removed": lambda run_dir, chance: _remove(_chunks(run_dir), chance),
    "config.json cut short": lambda run_dir, chance: _cut(_files(run_dir, "config.json"), chance),
}


if __name__ == "__main__":
    run(main, ChaosOptions, __doc__ or "")
