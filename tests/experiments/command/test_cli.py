"""What every command line checks, and the environments that it runs in."""

import dataclasses
import pathlib
import sys

import pytest

from experiments.command import processes
from experiments.command.allowed import check_options
from experiments.command.cli import Options, run
from experiments.command.options import ProcessOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(Options):
    run_dir: pathlib.Path = pathlib.Path("runs/a")
    dataset: str = "folder:data/a"
    images: tuple[pathlib.Path, ...] = ()


@pytest.mark.parametrize(
    "given",
    [
        {"run_dir": pathlib.Path("gs://bucket/a")},
        {"dataset": "folder:s3://bucket/a"},
        {"images": (pathlib.Path("/"), pathlib.Path("https://host/a.png"))},
    ],
)
def test_urls_are_refused_before_anything_is_written(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))}=.*: a local or mounted path is"):
        check_options(Paths(**given))


@pytest.mark.parametrize("dataset", ["folder:/data/a", "features:/a.npy,/b.npy", "digits"])
def test_paths_are_no_urls(dataset):
    check_options(Paths(dataset=dataset, run_dir=pathlib.Path("/a:/b")))


def test_names_that_are_no_unicode_are_printed_escaped(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["script"])
    with (tmp_path / "out").open("w", encoding="utf-8", errors="strict") as out:
        monkeypatch.setattr(sys, "stdout", out)
        run(lambda _: print("Z\udcfcrich.png"), Paths, "")
    assert (tmp_path / "out").read_text() == "Z\\udcfcrich.png\n"


def test_a_coordinator_without_a_port_is_named():
    options = ProcessOptions(coordinator="127.0.0.1", num_processes=2, process_id=0)
    with pytest.raises(ValueError, match="coordinator must be HOST:PORT, got 127.0.0.1"):
        processes.join(options)
