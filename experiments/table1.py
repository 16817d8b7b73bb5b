r"""The data sets: image size, numbers of images and of classes, as found and as in the paper.

    python -m experiments.table1 --data-dir data
    python -m experiments.table1 --datasets folder:cifar10 aid --data-dir data

Kariotakis et al. (CPAL 2024), Table 1. A data set that is missing or cannot be used is listed with
the reason. Expected: a few seconds, and the paper's own numbers for the original data.
"""

import dataclasses
import pathlib

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.figures import paper
from jist.data import DataError, Dataset, load_dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1Options(Options):
    """Options of the table."""

    datasets: tuple[str, ...] = ("cifar10", "resisc45", "aid")
    """Names of data sets, folder:PATH among them."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the folder of the authors' extracted data."""
    test_share: float = 0.2
    """Share of the images held out for testing, of a folder without train/ and test/."""
    seed: int = 0
    """Decides the split."""


def main(options: Table1Options) -> None:
    """Finds the data sets and prints the table."""
    table = Table(title="Data sets", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("data set", overflow="fold")
    table.add_column("", no_wrap=True)
    for column in ("image size", "training", "test", "classes"):
        table.add_column(column, justify="right", no_wrap=True)
    reasons = []
    for name in options.datasets:
        try:
            found = describe(name, options)
        except DataError as error:
            found = ("not usable", "", "", "")
            reasons.append(str(error))
        table.add_row(name, "found", *found)
        known = paper.find(name)
        if known:
            side = f"{known.image_size}×{known.image_size}"
            counts = (f"{known.train:,}", f"{known.test:,}", str(known.classes))
            table.add_row("", "paper", side, *counts)
        table.add_section()
    Console().print(table)
    for reason in reasons:
        print(f"not usable: {reason}")


def describe(name: str, options: Table1Options) -> tuple[str, str, str, str]:
    """The row of a data set.

    Raises:
        ValueError: the name is unknown, or an option is out of range.
        DataError: it is missing or cannot be used.
    """
    kind, _, path = name.partition(":")
    # A wrong argument for `load_dataset`; here, one of several data sets that may be missing.
    there = (options.data_dir or pathlib.Path()).expanduser() / pathlib.Path(path).expanduser()
    if kind in ("folder", "masked") and not there.is_dir():
        raise DataError(f"{name} is not there: {path} is no directory")
    train, test = (
        load_dataset(
            name,
            split,
            data_dir=options.data_dir,
            seed=options.seed,
            test_share=options.test_share,
        )
        for split in ("train", "test")
    )
    return sizes(train), f"{len(train):,}", f"{len(test):,}", str(len(train.class_names))


def sizes(dataset: Dataset) -> str:
    """Width × height of the first image of every class: the smallest to the largest."""
    first = np.unique(dataset.labels, return_index=True)[1]
    found = sorted({dataset.open(int(row)).size for row in first}, key=lambda s: s[0] * s[1])
    ends = (found[0], found[-1]) if len(found) > 1 else found
    return " to ".join(f"{width}×{height}" for width, height in ends)


if __name__ == "__main__":
    run(main, Table1Options, __doc__ or "")
