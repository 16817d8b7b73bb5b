"""Metrics of a run: JSON lines for programs, TensorBoard events for people."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jist.events import Events
from jist.models.fields import shown
from jist.staging import named, write_text


class SummaryError(ValueError):
    """A `summary.json` is damaged."""


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
        SummaryError: a summary is damaged; the message names it.
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
        found += [
            of
            | {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in record.items()
            }
            for record in read_summary(file)["results"]
        ]
    return found


def read_summary(file: pathlib.Path) -> dict[str, Any]:
    """Reads a `summary.json`: {"class_names": [...], "results": [{"run": ...}, ...]}.

    Raises:
        FileNotFoundError: there is no such file.
        SummaryError: it is damaged, or a field is missing or of another type.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise SummaryError(f"{file} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise SummaryError(f"{file} is damaged: it must hold a JSON object, got {shown(found)}")
    found = {"class_names": []} | found  # earlier ones, and copies, name no classes
    for field in ("class_names", "results"):
        if not isinstance(found.get(field), list):
            raise SummaryError(
                f"{file} is damaged: {field} must be a list, got {shown(found.get(field))}"
            )
    for number, name in enumerate(found["class_names"]):
        if not isinstance(name, str):
            raise SummaryError(
                f"{file} is damaged: class_names[{number}] must be a text, got {shown(name)}"
            )
    for number, result in enumerate(found["results"]):
        if not isinstance(result, dict) or not isinstance(result.get("run"), str):
            raise SummaryError(f"{file} is damaged: results[{number}].run is missing")
    return found


def _read(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def _lines(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a log and their records, without a last line that a kill cut short."""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield line, json.loads(line)
