r"""Every table and figure of the study, measured beside the paper's, as one HTML file.

    python -m experiments.report --runs runs/cifar10-sweep runs/aid-sweep --out runs/report

Reads run directories, or copies of their `summary.json`, and writes `report.html`, which contains
all pictures and needs no other file, and the pictures as PNGs beside it. For each data set, encoder
and set of head options (epochs, widths, ...): Table 4 (accuracies and sizes), Figures 4 to 7, and
the differences from Kariotakis et al. (CPAL 2024); Figure 3 where several encoders saw unmasked
images of one data set. Runs on unmasked images only appear in Figure 3 only.
Expected: seconds.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from experiments.command.cli import Options, run
from experiments.figures import paper, plots
from experiments.figures.html import Page
from experiments.figures.paper import PaperDataset
from experiments.figures.sizes import FIXED, measured_rows
from experiments.figures.summaries import Study, Table, by_study, read_results
from experiments.runs.plan import MASKS

BEST, LAST, CHOSEN = (
    "best_test_accuracy",
    "last_test_accuracy",
    "test_accuracy_at_best_validation",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """Options of the report."""

    runs: tuple[pathlib.Path, ...]
    """Run directories, or copies of their summary.json."""
    out: pathlib.Path = pathlib.Path("runs/report")
    """Where report.html and the PNGs are written."""


def main(options: ReportOptions) -> None:
    """Writes the report."""
    studies = by_study(read_results(options.runs))
    page = Page("Sparse input and sparse models: measured beside the paper", options.out)
    page.paragraph(
        "Kariotakis, Tsagkatakis, Tsakalides, Kyrillidis: Leveraging Sparse Input and Sparse "
        "Models, CPAL 2024. Accuracies are on test images, in %, as mean ± standard deviation over "
        "the seeds where there are several. Best is the highest over the epochs, chosen on the "
        "test images, as the paper prints it; last is that of the last epoch; where training "
        "images were held out, the test accuracy of the epoch that they choose stands beside them."
    )
    table_1(page, studies)
    figure_3(page, studies)
    masked = {
        study: table
        for study, table in studies.items()
        if any(ratio > 0 for line in table.values() for ratio in line)
    }
    for number, (study, table) in enumerate(masked.items(), 1):
        section(page, number, study, table)
    page.write("report.html")
    print(f"written: {options.out}/report.html")


def table_1(page: Page, studies: dict[Study, Table]) -> None:
    """Table 1: the data sets of the paper, and those of the results."""
    page.heading("Data sets (Table 1)")
    rows = []
    for dataset in paper.DATASETS:
        found = {
            (study.train_examples, _first(table)["test_examples"], study.dataset)
            for study, table in studies.items()
            if paper.find(study.dataset) == dataset
        }
        there = "; ".join(f"{train:,} / {test:,} ({name})" for train, test, name in sorted(found))
        rows.append(
            [
                dataset.name,
                f"{dataset.image_size} × {dataset.image_size}",
                str(dataset.classes),
                f"{dataset.train:,} / {dataset.test:,}",
                there or "not measured",
            ]
        )
    page.table(["data set", "pixels", "classes", "paper, train / test", "here"], rows)


def figure_3(page: Page, studies: dict[Study, Table]) -> None:
    """Figure 3, for each data set that several encoders saw without masks."""
    for dataset in dict.fromkeys(study.dataset for study in studies):
        found = {
            study: table[FIXED][0.0]
            for study, table in studies.items()
            if study.dataset == dataset and 0.0 in table.get(FIXED, {})
        }
        if len({(study.encoder, study.weights) for study in found}) < 2:
            continue
        cells = dict(zip(told_apart([*found]), found.values(), strict=True))
        page.heading(f"Encoders on unmasked images of {short(dataset)} (Figure 3)")
        page.quote(paper.CLAIMS["figure 3"])
        rows = [[name, cell.percent(BEST), cell.percent(LAST)] for name, cell in cells.items()]
        page.table(["encoder", "best", "last"], rows)
        title = f"Unmasked {short(dataset)}, centralised"
        page.figure(f"figure-3-{short(dataset)}", plots.encoders(title, cells))


def told_apart(studies: Sequence[Study]) -> list[str]:
    """Names of studies of one data set, no longer than is needed to distinguish them."""
    short_names = [f"{short(study.encoder)}, {study.epochs} epochs" for study in studies]
    full_names = [f"{study.encoder}, {study.epochs} epochs" for study in studies]
    all_facts = [
        f"{name}, {study.train_examples:,} training images, {study.options or 'default options'}"
        + (f", weights {study.weights}" if study.weights else "")
        for name, study in zip(full_names, studies, strict=True)
    ]
    candidates = (short_names, full_names, all_facts)
    return next(names for names in candidates if len(set(names)) == len(studies))


def section(page: Page, number: int, study: Study, table: Table) -> None:
    """Table 4 and Figures 4 to 7 of one study."""
    known = paper.find(study.dataset)
    name = f"{known.name if known else short(study.dataset)}, {short(study.encoder)}"
    stem = f"{number}-{short(study.dataset)}"
    page.heading(f"{number}. {name}")
    page.items(differences(study, table, known))

    page.subheading("Best and last accuracy, and the sizes of the training set (Table 4)")
    page.quote(paper.CLAIMS["table 4"])
    _table_4(page, table, known)

    central = [method for method in table if method.strategy == "centralized"]
    if central:
        page.subheading("Fixed and random masks, centralised (Figure 4)")
        page.quote(paper.CLAIMS["figure 4"])
        _table_of_methods(page, table, central)
        page.figure(f"figure-4-{stem}", plots.accuracy(name, table, central, known))
        page.figure(f"figure-4-epochs-{stem}", plots.curves(name, table, central))
    rows = measured_rows(table, known)
    page.subheading("Size of the data set (Figures 5 and 6)")
    page.figure(f"figure-5-{stem}", plots.sizes(name, rows, known))
    if any(row.accuracy is not None for row in rows):
        page.figure(f"figure-6-{stem}", plots.accuracy_against_size(name, rows, known))
    workers = [method for method in table if method.strategy == "ist"]
    if workers:
        page.subheading("Independent subnet training (Figure 7)")
        page.quote(paper.CLAIMS["figure 7"])
        _table_of_methods(page, table, workers)
        page.figure(f"figure-7-{stem}", plots.accuracy(name, table, workers, known))
        page.figure(f"figure-7-epochs-{stem}", plots.curves(name, table, workers))


def differences(study: Study, table: Table, known: PaperDataset | None) -> list[str]:
    """The differences between a study and the paper's, in words."""
    result = _first(table)
    seeds = {r["seed"] for line in table.values() for cell in line.values() for r in cell.results}
    test = result["test_examples"]
    sha256 = f" (SHA-256 {study.weights}...)" if study.weights else ""
    found = [
        f"Encoder here: {study.encoder}{sha256}, {result['image_size']} pixels in patches of "
        f"{result['patch_size']}, {result['feature_dim']} features. The paper's: {paper.ENCODER}."
    ]
    counts = f"{study.train_examples:,} training and {test:,} test images"
    if known is None:
        found.append(f"Data here: {study.dataset}, {counts}; not one of the paper's data sets.")
    elif (study.train_examples, test) == (known.train, known.test):
        found.append(f"Data here: {study.dataset}, {counts}, as many as in the paper.")
    else:
        found.append(
            f"Data here: {study.dataset}, {counts}. The paper's {known.name}: {known.train:,} and "
            f"{known.test:,}."
        )
    if result["encoder"].startswith("random-"):
        found.append("The encoder is randomly initialised, not pre-trained.")
    other = sorted({method.mask for method in table} - {*MASKS})
    if other:
        found.append(
            f"Masks here: {', '.join(other)}; ratios are the shares of patches that are missing. "
            "The paper has no results of such masks."
        )
    if result["validation_examples"]:
        own = "images of the validation split" if result.get("own_validation") else ""
        found.append(
            f"{result['validation_examples']:,} "
            f"{own or 'further training images are held out to'} choose the epoch; the paper holds "
            "out none."
        )
    if study.epochs != 30:
        found.append(f"{study.epochs} epochs; the paper's 30.")
    if study.options:
        found.append(f"Options unlike the paper's: {study.options}.")
    found.append(f"Seeds: {', '.join(map(str, sorted(seeds)))}. The paper does not say how many.")
    return found


def _table_4(page: Page, table: Table, known: PaperDataset | None) -> None:
    accuracy = dict(zip(paper.RATIOS, known.accuracy, strict=True)) if known else {}
    printed = dict(zip(paper.RATIOS, known.masked_gigabytes, strict=True)) if known else {}
    fixed = table.get(FIXED, {})
    rows = []
    for row in measured_rows(table, known):
        cell, theirs = fixed.get(row.ratio), accuracy.get(row.ratio)
        gap = "" if cell is None or theirs is None else f"{100 * (cell.mean(BEST) - theirs):+.1f}"
        rows.append(
            [
                f"{row.ratio:g}",
                "" if theirs is None else f"{100 * theirs:.1f}",
                cell.percent(BEST) if cell else "",
                gap,
                cell.percent(LAST) if cell else "",
                printed.get(row.ratio, ""),
                *(f"{s / 1e9:.4g}" for s in (row.formula_bytes, row.true_bytes, row.cls_bytes)),
            ]
        )
    page.table(
        [
            "ratio",
            "paper, best",
            "here, best",
            "difference",
            "here, last",
            "paper, masked images (GB)",
            "here, by its formula (GB)",
            "here, true (GB)",
            "here, CLS vectors (GB)",
        ],
        rows,
    )


def _table_of_methods(page: Page, table: Table, methods: list) -> None:
    ratios = sorted({ratio for method in methods for ratio in table[method]})
    rows = []
    for method in methods:
        for label, metric in (("best", BEST), ("last", LAST), ("chosen by validation", CHOSEN)):
            line = table[method]
            if all(metric in result for cell in line.values() for result in cell.results):
                percent = [line[r].percent(metric) if r in line else "" for r in ratios]
                rows.append([f"{method}: {label}", *percent])
    page.table(["masking ratio", *(f"{ratio:g}" for ratio in ratios)], rows)


def short(name: str) -> str:
    """The last part of a data set's or an encoder's path, fit for a file name."""
    return re.sub(r"[^\w.-]+", "-", name.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1])


def _first(table: Table) -> dict:
    return next(iter(next(iter(table.values())).values())).results[0]


if __name__ == "__main__":
    run(main, ReportOptions, __doc__ or "")
