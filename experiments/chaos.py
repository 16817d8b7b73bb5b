r"""Kills, damages and resumes small trainings, and counts what survives.

    python -m experiments.chaos --minutes 10 --out runs/chaos.json

A training on the digits runs once undisturbed. Then, in every trial, a copy of it is begun, killed
with SIGKILL at a random moment, damaged in a random way, and started again by the same command.
`same bits`: it ends with the undisturbed metrics in every epoch. `told`: it stops with one line and
exit code 1, so that nothing false comes out. Anything else is `lost`, and its output is written
down. Expected: as long as `--minutes` says, 4 trials a minute on 2 CPU cores.
"""

import dataclasses
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from experiments.command.cli import Options, run
from experiments.figures.trials import print_trials
from experiments.runs.directory import write_json
from jist.metrics import read_metrics

COMMAND = (
    *("-m", "experiments.distributed", "--dataset", "digits", "--hidden", "64", "--workers", "2"),
    *("--local-steps", "5"),
)
OUTCOMES = ("same bits", "told", "lost")


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
    trials = []
    with tempfile.TemporaryDirectory() as base:
        whole = pathlib.Path(base, "whole")
        begun = time.monotonic()
        command = (*COMMAND, "--epochs", str(options.epochs), "--run-dir")
        code, said = train(command, whole)
        took = time.monotonic() - begun
        if code != 0:
            raise RuntimeError(
                f"the undisturbed training ends with exit code {code}: {said[-300:]}"
            )
        expected = curve(whole)
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            name = chance.choice([*DAMAGES])
            after = chance.uniform(0.3, 1) * took
            trial = attempt(command, pathlib.Path(base, "trial"), name, after, expected, chance)
            trials.append(trial)
            print(f"{name}, killed after {after:.1f} s: {trial['outcome']}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {"command": command, "undisturbed_seconds": took, "trials": trials})
    print_trials(trials, "damage", "damage beside the kill", OUTCOMES)
    print(f"written: {options.out}")


def attempt(
    command: Sequence[str],
    run_dir: pathlib.Path,
    name: str,
    after: float,
    expected: list,
    chance: random.Random,
) -> dict:
    """One trial, in a directory that is made anew."""
    shutil.rmtree(run_dir, ignore_errors=True)
    train(command, run_dir, killed_after=after)
    reached = len(curve(run_dir))
    hit = DAMAGES[name](run_dir, chance)
    code, said = train(command, run_dir)
    if code == 0 and curve(run_dir) == expected:
        outcome = OUTCOMES[0]
    elif code == 1 and len([line for line in said.splitlines() if line.startswith("error: ")]) == 1:
        outcome = OUTCOMES[1] if "Traceback" not in said else OUTCOMES[2]
    else:
        outcome = OUTCOMES[2]
    lines = said.splitlines() if outcome != OUTCOMES[0] else []
    return {
        "damage": name if hit else "none: nothing there yet",
        "killed_after_s": round(after, 2),
        "epochs_reached": reached,
        "outcome": outcome,
        "said": lines[-5:],
    }


def train(
    command: Sequence[str], run_dir: pathlib.Path, killed_after: float | None = None
) -> tuple[int, str]:
    """Runs the training to its end, or to its death: exit code and what it said."""
    child = subprocess.Popen(
        [sys.executable, *command, str(run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = child.communicate(timeout=killed_after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
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
