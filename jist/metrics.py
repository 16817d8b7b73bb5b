"""Metrics of a run: JSON lines for programs, TensorBoard events for people."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jist.events import Events
from jist.staging import named, write_text


class MetricsLog:
    """Appends one JSON object per epoch to `metrics.jsonl`, and scalars to TensorBoard.

    Several trainings may share the file: each line carries the tags of its training. Only the first
    process writes; the others read, so all see the same history.

    Args:
        directory: where `metrics.jsonl` and `tensorboard/` are; must exist.
        name: the name of this training, which its lines carry as "run".
        tags: further fields of its lines.
    """

    def __init__(
        self, directory: str | os.PathLike, name: str, tags: Mapping[str, Any] | None = None
    ):
        self.path = pathlib.Path(directory) / "metrics.jsonl"
        self._events = pathlib.Path(directory) / "tensorboard" / name
        self._tags = {"run": name, **(tags or {})}
        self._writer: Events | None = None
        self._writes = jax.process_index() == 0
        self._begun = False

    def rewind(self, epoch: int) -> list[dict[str, Any]]:
        """Drops this training's lines after an epoch, and returns those up to it.

        A run that was killed between writing a line and its checkpoint repeats that epoch.
        """
        kept, own = [], []
        before = _read(self.path)
        for line, record in _lines(before):
            if record["run"] != self._tags["run"]:
                kept.append(line)
            elif record["epoch"] <= epoch:
                kept.append(line)
                own.append({k: v for k, v in record.items() if k not in self._tags})
        if not self._writes:
            return own
        text = "".join(line + "\n" for line in kept)
        if text != before:
            write_text(self.path, text)
        with named(self._events):
            self._writer = Events(self._events, epoch + 1)
        return own

    def append(self, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one epoch; "epoch" is the step of the TensorBoard events.

        Raises:
            OSError: they cannot be written. FileNotFoundError: those before were removed meanwhile,
                with the whole run, say, of which checkpoints alone would be made again.
        """
        if not self._writes:
            return
        with named(self.path), self.path.open("r+" if self._begun else "a") as file:
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(self._tags | dict(metrics)) + "\n")
        self._begun = True
        if self._writer is not None:
            numbers = {
                name: value
                for name, value in metrics.items()
                if isinstance(value, int | float) and name != "epoch"
            }
            with named(self._events):
                self._writer.append(numbers, metrics["epoch"])

    def close(self) -> None:
        """Closes the TensorBoard file.

        Raises:
            OSError: what is left cannot be written.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            with named(self._events):
                writer.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """The metrics of all trainings of a run directory, one record per training and epoch."""
    text = _read(pathlib.Path(directory) / "metrics.jsonl")
    return [record for _, record in _lines(text)]


def results(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """The results of a run, one record for each finished training, as pandas takes them.

    Lists, such as the widths of hidden layers, are tuples, so that tables can be grouped by them.

    Args:
        run_dir: a run directory, that of a sweep or a comparison, a directory of run directories,
            or a copy of a `summary.json`.

    Returns:
        The records of `summary.json`. Of several run directories each says in "directory" which is
        its own.

    Raises:
        FileNotFoundError: no training has been finished there, or there is no such directory.
        ValueError: a summary is damaged; the message names it.
    """
    path = pathlib.Path(run_dir)
    files = [path / "summary.json" if path.is_dir() else path]
    if path.is_dir() and not files[0].exists():
        files = sorted(path.glob("*/summary.json"))
    if not files or not files[0].exists():
        raise FileNotFoundError(f"no results in run_dir={path}: there is no summary.json")
    found = []
    for file in files:
        of = {"directory": file.parent.name} if len(files) > 1 else {}
        found += [of | record for record in _records(file)]
    return found


def _records(file: pathlib.Path) -> list[dict[str, Any]]:
    try:
        records = [dict(record) for record in json.loads(file.read_text())["results"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{file} is damaged: no JSON object with a list "results"') from None
    return [
        {name: tuple(of) if isinstance(of, list) else of for name, of in record.items()}
        for record in records
    ]


def _read(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def _lines(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a log and their records, without a last line that a kill cut short."""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield line, json.loads(line)
