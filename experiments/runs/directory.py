"""The directory of a run: its configuration and results, checked to belong together."""

import errno
import fcntl
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils

from experiments.command.errors import UsageError
from experiments.runs.hub import REVISION
from experiments.runs.remarks import say_once
from jist.metrics import read_metrics, read_summary
from jist.models.fields import shown
from jist.staging import write_text

# In config.json, and no part of the configuration; and whatever ends in `DIGEST`.
DIGEST = "_sha256"
FEATURES = "features_dir"
COMMAND = "command"
WORKING_DIRECTORY = "working_directory"
DATA_DIR = "data_dir"
DEVICES = "trained_on_devices"
FEATURE_NAMES = "feature_names"
# Why no run is resumed with another value.
REASONS = {"own_validation": "data of only one of them bring a validation split"}
# Descriptors of the locks that this process holds; any end of the process releases them.
_locks: dict[pathlib.Path, int] = {}


class RunDirectory:
    """Opens the directory of a run, or makes it, and keeps other programs out until this one ends.

    It holds `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`, `features/` and
    `summary.json`: {"class_names": [...], "results": [...]}, one result per training. Of many
    processes the first writes; the directory is on a file system that all of them share.

    Args:
        path: where it is.
        config: the experiment's name and options; must equal those of the run that is there.
        growing: names of numbers in it, such as "head.epochs", that may be higher than those of
            the existing run, which is then extended.
        reasons: name of an option -> why a run cannot be resumed with another value, for the
            message.
        data_dir: where the data are, as of the options; noted for scripts that take the run.

    Raises:
        ValueError: the directory holds epochs of another configuration (the fields are named).
        RuntimeError: another program is at work in it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: dict[str, Any],
        *,
        growing: Sequence[str] = (),
        reasons: Mapping[str, str] | None = None,
        data_dir: pathlib.Path | None = None,
    ):
        self.path = pathlib.Path(path)
        if jax.process_index() == 0:
            lock(self.path)
        self.config = json.loads(json.dumps(config))  # as it reads back: tuples become lists
        file = self.path / "config.json"
        # Before its first epoch a run has nothing to lose: a mistyped option may be corrected.
        if file.exists() and (self.path / "metrics.jsonl").exists():
            there = without_notes(read_json(file))
            grown = [name for name in growing if grows(there, self.config, name)]
            differ = differences(
                there, self.config, besides=grown, reasons=REASONS | dict(reasons or {})
            )
            if differ:
                raise UsageError(
                    f"run_dir={self.path} belongs to another configuration; choose another "
                    f"--run-dir or remove it: " + "; ".join(differ)
                )
            if grown and jax.process_index() == 0:
                before = read_json(file)
                before.pop(DATA_DIR, None)  # where this command has found them without one
                write_json(file, before | self.config | _command_noted(data_dir))
        elif jax.process_index() == 0:
            write_json(file, self.config | _command_noted(data_dir))

    def pin(self, digests: Mapping[str, Any]) -> None:
        """Records digests of what the run works on, or checks that they are still the same.

        Paths are not enough: pre-training replaces the encoder in its directory.

        Args:
            digests: SHA-256 of the encoder ("encoder_sha256"), say; what else is among them, as the
                encoder's revision or the names of features, is recorded and not compared.

        Raises:
            ValueError: the run began with others.
        """
        if jax.process_index() == 0:
            config = read_json(self.path / "config.json")
            check_pinned(config, digests)
            write_json(self.path / "config.json", config | dict(digests))

    def note_features(self, directory: pathlib.Path) -> None:
        """Records where the run's features are kept, for `features_of`.

        A path below the parent of the run directory is recorded relative to the run, so that both
        can be moved together.
        """
        if jax.process_index() == 0:
            config = read_json(self.path / "config.json")
            run, kept = self.path.resolve(), directory.resolve()
            near = kept.is_relative_to(run.parent)
            noted = os.path.relpath(kept, run) if near else str(kept)
            write_json(self.path / "config.json", config | {FEATURES: noted})

    def note_devices(self, training: str, count: int, epochs: int) -> None:
        """Records how many devices share a training, and says so where it goes on with others.

        What is learned depends on their number by rounding alone.

        Args:
            training: its name.
            count: of the devices.
            epochs: of the training; nothing is written of one that has them all.
        """
        there = read_metrics(self.path) if (self.path / "metrics.jsonl").exists() else []
        done = sum(metrics["run"] == training for metrics in there)
        if jax.process_index() == 0 and done < epochs:
            config = read_json(self.path / "config.json")
            noted = config.get(DEVICES, {})
            before = noted.get(training, count)
            if before != count:
                say_once(
                    f"the training goes on with {count} device(s) in place of {before}: the same "
                    "results up to rounding"
                )
            if noted.get(training) != count:
                config[DEVICES] = noted | {training: count}
                write_json(self.path / "config.json", config)

    def results(self) -> dict[str, dict[str, Any]]:
        """The results that are there, by the name of the training."""
        file = self.path / "summary.json"
        return {r["run"]: r for r in read_summary(file)["results"]} if file.exists() else {}

    def add_result(self, result: dict[str, Any], class_names: list[str]) -> None:
        """Adds the result of one training to `summary.json`; every process calls it.

        Raises:
            FileNotFoundError: the configuration was removed meanwhile.
        """
        if jax.process_index() == 0:
            read_json(self.path / "config.json")
            results = self.results() | {result["run"]: result}
            summary = {"class_names": class_names, "results": list(results.values())}
            write_json(self.path / "summary.json", summary)
        multihost_utils.sync_global_devices("the result is written")


def without_notes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a `config.json`, without what is only noted there."""
    notes = (FEATURES, COMMAND, WORKING_DIRECTORY, DATA_DIR, REVISION, DEVICES, FEATURE_NAMES)
    return {n: of for n, of in config.items() if n not in notes and not n.endswith(DIGEST)}


def command_line() -> list[str]:
    """The script that this process runs, and its options; empty where it runs none of ours."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # as given to `python -m`
    name = "" if spec is None else spec.name
    return (
        [name.removesuffix(".__main__"), *sys.argv[1:]] if name.startswith("experiments.") else []
    )


def _command_noted(data_dir: pathlib.Path | None) -> dict[str, Any]:
    command = command_line()
    where = {WORKING_DIRECTORY: os.getcwd()}  # where relative paths of data sets begin
    where |= {} if data_dir is None else {DATA_DIR: str(data_dir)}
    return ({COMMAND: command} if command else {}) | where


def check_pinned(
    config: Mapping[str, Any], digests: Mapping[str, Any], option: str = "--run-dir"
) -> None:
    """Checks that encoder or features are those of a run.

    Args:
        config: the configuration of the run; those of earlier versions hold no digests.
        digests: as of `RunDirectory.pin`.
        option: says where the run is.

    Raises:
        ValueError: one is another.
    """
    for name, sha256 in digests.items():
        if name.endswith(DIGEST) and config.get(name, sha256) != sha256:
            raise UsageError(
                f"{name.removesuffix('_sha256').replace('_', ' ')}: not what the run began with, "
                f"though the name is the same: the SHA-256 is {sha256[:8]}..., the run's was "
                f"{config[name][:8]}...; choose another {option} or put the old one back"
            )


def features_of(run_dir: pathlib.Path) -> pathlib.Path:
    """Where the features of a run are kept; if that is gone, `features` in the run directory."""
    noted = run_dir / read_part(run_dir, "config.json").get(FEATURES, "features")
    return noted if noted.is_dir() else run_dir / "features"


def read_part(run_dir: pathlib.Path, name: str) -> dict[str, Any]:
    """The `config.json` or `summary.json` of a run.

    Raises:
        FileNotFoundError: it is no run directory, or no training of it has been finished yet.
    """
    if not (run_dir / "config.json").exists():
        below = sorted(path.parent.name for path in run_dir.glob("*/config.json"))
        raise FileNotFoundError(
            f"run_dir={run_dir} is no run directory: config.json is missing"
            + (f"; it holds some: {', '.join(below)}" if below else "")
        )
    if (run_dir / name).exists():
        found = (read_summary if name == "summary.json" else read_json)(run_dir / name)
        if found.get("results") != []:
            return found
    raise FileNotFoundError(f"no training of run_dir={run_dir} has been finished yet")


def lock(path: pathlib.Path) -> None:
    """Keeps other programs out of a directory, made if missing, until this one ends.

    Raises:
        RuntimeError: another program uses it.
    """
    path.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    if path in _locks:
        return
    try:
        descriptor = os.open(path / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        return  # nobody can write there, and what is finished can be read
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RuntimeError(
            f"run_dir={path} is in use by another program; wait for it or choose another --run-dir"
        ) from None
    except OSError:  # a file system without locks: run unlocked rather than not at all
        pass
    _locks[path] = descriptor


def differences(
    there: dict[str, Any],
    here: dict[str, Any],
    *,
    besides: Sequence[str] = (),
    reasons: Mapping[str, str] | None = None,
) -> list[str]:
    """The differences between two configurations, by name, in words.

    Args:
        there: one configuration.
        here: the other.
        besides: names that may differ.
        reasons: name -> why it must not differ.
    """
    there, here = _flat(there), _flat(here)
    because = {name: f" ({reason})" for name, reason in (reasons or {}).items()}
    found = []
    for name in sorted((there.keys() | here.keys()) - set(besides)):
        entry = name.partition("]")[0] + "]"
        if "[" in name and not all(any(n.startswith(entry) for n in of) for of in (there, here)):
            one = f"{entry} is {'there' if name in there else 'here'} alone"
            found += [] if one in found else [one]
        elif there.get(name) != here.get(name):
            reason = because.get(name, "")
            found.append(f"{name} is {there.get(name)!r} there and {here.get(name)!r} here{reason}")
    return found


def grows(there: dict[str, Any], here: dict[str, Any], name: str) -> bool:
    """Whether a number, named as in `differences`, is higher here than there."""
    before, now = _flat(there).get(name), _flat(here).get(name)
    return isinstance(before, int) and isinstance(now, int) and now > before


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = [(f"{name}.{key}" if name else key, item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        pairs = [(f"{name}[{number}]", item) for number, item in enumerate(value)]
    else:
        return {name: value}
    return {k: v for key, item in pairs for k, v in _flat(item, key).items()}


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise RuntimeError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise RuntimeError(f"{path} is damaged: it must hold a JSON object, got {shown(found)}")
    return found


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
