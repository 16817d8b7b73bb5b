r"""Size of a data set of masked images and the accuracy reached on it, at each masking ratio.

    python -m experiments.dataset_size
    python -m experiments.dataset_size --runs runs/cifar10-sweep --out runs/dataset_size

Kariotakis et al. (CPAL 2024), Table 4 and Figures 5 and 6. Without `--runs`, the paper's three
data sets: the printed sizes follow from its formula to the last digit. The formula counts 4 bytes
for each pixel and leaves out the three channels. The true size counts the kept patches, three bytes
a pixel, and their indices; images larger than the encoder's input count at the size of that input.
With `--runs`, run directories or copies of their `summary.json`: the same table for these results,
with the best test accuracy of centralised training on fixed masks, and Figures 5 and 6 as PNGs.
Expected: seconds.
"""

import dataclasses
import pathlib

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.figures import paper, plots, png
from experiments.figures.sizes import SizeRow, measured_rows, printed_rows
from experiments.figures.summaries import by_study, read_results


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSizeOptions(Options):
    """Options of the size tables."""

    runs: tuple[pathlib.Path, ...] = ()
    """Run directories, or copies of their summary.json; none shows the paper's data sets."""
    out: pathlib.Path = pathlib.Path("runs/dataset_size")
    """Where the figures are written."""


def main(options: DatasetSizeOptions) -> None:
    """Prints the tables, and draws the figures of what was measured."""
    if not options.runs:
        for dataset in paper.DATASETS:
            print_rows(f"{dataset.name}, {paper.ENCODER}", printed_rows(dataset), dataset)
        return
    for i, (study, table) in enumerate(by_study(read_results(options.runs)).items()):
        known = paper.find(study.dataset)
        rows = measured_rows(table, known)
        title = str(study)
        print_rows(title, rows, known)
        for name, figure in (
            (f"figure-5-sizes-{i}.png", plots.sizes(title, rows, known)),
            (f"figure-6-accuracy-{i}.png", plots.accuracy_against_size(title, rows, known)),
        ):
            png.write(figure, options.out / name)
            print(f"written: {options.out / name}")


def print_rows(title: str, rows: list[SizeRow], known: paper.PaperDataset | None) -> None:
    """Prints one row for each ratio; sizes in GB as in Table 4."""
    table = Table(
        title=f"{title}: {rows[0].examples:,} training images", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in (
        "patches\nremoved",
        "formula\n(GB)",
        "printed\n(GB)",
        "true\n(GB)",
        "CLS\n(GB)",
        "best\naccuracy",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    printed = {}
    if known is not None and known.train == rows[0].examples:
        printed = dict(zip(paper.RATIOS, known.masked_gigabytes, strict=True))
    for row in rows:
        table.add_row(
            f"{row.ratio:.0%}",
            paper.as_printed(row.formula_bytes) if printed else f"{row.formula_bytes / 1e9:.4g}",
            printed.get(row.ratio, ""),
            f"{row.true_bytes / 1e9:.4g}",
            f"{row.cls_bytes / 1e9:.4g}",
            "" if row.accuracy is None else f"{row.accuracy:.1%}",
        )
    Console().print(table)


if __name__ == "__main__":
    run(main, DatasetSizeOptions, __doc__ or "")
