"""The report shows measured results, the paper's numbers, and the differences."""

import html.parser
import json
import pathlib
import re

import pytest
from PIL import Image

from experiments import dataset_size, report
from experiments.figures import paper, plots
from experiments.figures.sizes import FIXED, measured_rows, printed_rows
from experiments.figures.summaries import Method, by_study, read_results

RESULTS = pathlib.Path(report.__file__).parent / "results"
CIFAR = {
    "run": "x",
    "dataset": "folder:data/cifar10",
    "encoder": "random-nano",
    "image_size": 32,
    "patch_size": 4,
    "feature_dim": 128,
    "norm": "standardize",
    "epochs": 2,
    "worker_data": "shared",
    "train_examples": 50_000,
    "validation_examples": 0,
    "test_examples": 10_000,
}
METHODS = (("centralized", 1, "fixed"), ("centralized", 1, "random"), ("ist", 4, "fixed"))


def result(best, **others):
    curve = [best, best - 0.02]
    return CIFAR | {
        "best_test_accuracy": best,
        "last_test_accuracy": curve[-1],
        "test_accuracy_per_epoch": curve,
        **others,
    }


@pytest.fixture
def runs(tmp_path):
    """A sweep on CIFAR-10 with two seeds, and another encoder on unmasked images."""
    sweep = [
        result(
            0.5 + 0.02 * seed, strategy=strategy, workers=workers, mask=mask, ratio=ratio, seed=seed
        )
        for strategy, workers, mask in METHODS
        for ratio in (0.0, 0.5)
        for seed in (0, 1)
    ]
    other = result(0.4, strategy="centralized", workers=1, mask="fixed", ratio=0.0, seed=0)
    paths = []
    for name, results in (("sweep", sweep), ("other", [other | {"encoder": "encoders/resnet50"}])):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"class_names": [], "results": results}))
    return paths


class Cells(html.parser.HTMLParser):
    """The rows of all tables, and what the page loads."""

    def __init__(self):
        super().__init__()
        self.rows, self.loads, self._inside = [], [], False

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")
        if self._inside:
            self.rows[-1].append("")
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


def test_measured_and_printed_numbers_stand_in_one_row(runs, tmp_path):
    report.main(report.ReportOptions(runs=tuple(runs), out=tmp_path / "out"))
    text = (tmp_path / "out" / "report.html").read_text()
    page = Cells()
    page.feed(text)
    (row,) = [row for row in page.rows if row[:2] == ["0.5", "85.1"]]
    assert row[2:5] == ["51.0 ± 1.4", "-34.1", "49.0 ± 1.4"]
    assert row[5] == "0.102"
    assert [float(cell) for cell in row[6:]] == pytest.approx(
        [
            32 * 32 * 0.5 * 50_000 * 4 / 1e9,
            50_000 * (32 * 32 * 3 // 2 + 32) / 1e9,
            128 * 50_000 * 4 / 1e9,
        ]
    )
    assert ["IST, 4 workers: best", "51.0 ± 1.4", "51.0 ± 1.4"] in page.rows
    assert ["resnet50, 2 epochs", "40.0", "38.0"] in page.rows
    for difference in (
        "random-nano, 32 pixels",
        "The encoder is randomly initialised, not pre-trained.",
        "50,000 training and 10,000 test images, as many as in the paper.",
        "2 epochs; the paper&#x27;s 30.",
        "Seeds: 0, 1.",
    ):
        assert difference in text
    assert len(re.findall(r"<h2>\d+\.", text)) == 1  # unmasked images alone are Figure 3
    # The page needs no other file, and the pictures in it are those beside it.
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    pictures = list((tmp_path / "out").glob("*.png"))
    assert len(pictures) == len(page.loads) == 7
    for picture in pictures:
        with Image.open(picture) as image:
            image.verify()


def unmasked(encoder, **others):
    how = {"strategy": "centralized", "workers": 1, "mask": "fixed", "ratio": 0.0, "seed": 0}
    return result(0.4, encoder=encoder, **how | others)


def figure_3(tmp_path, *results):
    """The first column of Figure 3's table."""
    (tmp_path / "runs.json").write_text(json.dumps({"class_names": [], "results": results}))
    options = report.ReportOptions(runs=(tmp_path / "runs.json",), out=tmp_path / "out")
    report.main(options)
    page = Cells()
    page.feed((tmp_path / "out" / "report.html").read_text())
    rows = [row[0] for row in page.rows]
    return rows[rows.index("encoder") + 1 :] if "encoder" in rows else []


def test_encoders_of_one_name_both_stand_in_figure_3(tmp_path):
    assert figure_3(tmp_path, unmasked("runs/a/encoder"), unmasked("runs/b/encoder")) == [
        "runs/a/encoder, 2 epochs",
        "runs/b/encoder, 2 epochs",
    ]
    assert figure_3(
        tmp_path, unmasked("a/x"), unmasked("b/y"), unmasked("b/y", hidden=[500], seed=1)
    ) == [
        "a/x, 2 epochs, 50,000 training images, default options",
        "b/y, 2 epochs, 50,000 training images, hidden 500",
        "b/y, 2 epochs, 50,000 training images, default options",
    ]
    first, later = unmasked("a", encoder_sha256="1" * 64), unmasked("a", encoder_sha256="2" * 64)
    assert figure_3(tmp_path, first, later) == [
        "a, 2 epochs, 50,000 training images, default options, weights 11111111",
        "a, 2 epochs, 50,000 training images, default options, weights 22222222",
    ]


def test_one_encoder_under_several_heads_is_no_comparison_of_encoders(tmp_path):
    assert figure_3(tmp_path, unmasked("a"), unmasked("a", hidden=[500])) == []


def test_heads_unlike_the_papers_are_told(runs, tmp_path):
    summary = json.loads(runs[0].read_text())
    for one in summary["results"]:
        one |= {"hidden": [500, 500], "learning_rate": 3e-3}
    runs[0].write_text(json.dumps(summary))
    report.main(report.ReportOptions(runs=(runs[0],), out=tmp_path / "out"))
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Options unlike the paper&#x27;s: hidden 500-500, learning rate 0.003." in text


@pytest.mark.parametrize("name", ["sweep-cifar10", "sweep-aid"])
def test_the_committed_results_are_one_study_each(name):
    """They were written before results held all options, with the default ones."""
    (table,) = by_study(read_results([RESULTS / f"{name}.json"])).values()
    assert all(method.options == "" for method in table)
    assert {len(table[FIXED][ratio].results) for ratio in (0.0, 0.5, 0.75)} == {3}


def test_what_validation_chose_is_told(runs, tmp_path):
    summary = json.loads(runs[0].read_text())
    for one in summary["results"]:
        one |= {"validation_examples": 5_000, "test_accuracy_at_best_validation": 0.25}
    runs[0].write_text(json.dumps(summary))
    report.main(report.ReportOptions(runs=(runs[0],), out=tmp_path / "out"))
    text = (tmp_path / "out" / "report.html").read_text()
    assert "5,000 further training images are held out to choose the epoch" in text
    assert "centralised, fixed masks: chosen by validation" in text
    assert "25.0 ± 0.0" in text


def test_every_axis_has_a_name(runs):
    _, table = by_study(read_results(runs[:1])).popitem()
    known = paper.DATASETS[0]
    rows = measured_rows(table, known)
    cell = table[Method("centralized", 1, "fixed")][0.0]
    for figure in (
        plots.accuracy("x", table, [*table], known),
        plots.curves("x", table, [*table]),
        plots.encoders("x", {"a": cell}),
        plots.sizes("x", rows, known),
        plots.accuracy_against_size("x", rows, known),
    ):
        assert all(axes.get_xlabel() for axes in figure.axes)
        assert figure.axes[0].get_ylabel()


def test_the_papers_accuracy_is_drawn_with_the_measured_one(runs):
    _, table = by_study(read_results(runs[:1])).popitem()
    known = paper.DATASETS[0]
    (axes,) = plots.accuracy("x", table, [*table], known).axes
    (line,) = [line for line in axes.lines if line.get_label() == "paper, centralised"]
    assert [*line.get_ydata()] == pytest.approx([100 * a for a in known.accuracy])


def test_sizes_without_and_with_runs(runs, tmp_path, capsys):
    dataset_size.main(dataset_size.DatasetSizeOptions())
    out = capsys.readouterr().out
    for dataset in paper.DATASETS:
        for gigabytes in dataset.masked_gigabytes:
            assert out.count(gigabytes) >= 2  # by the formula, and as printed
    options = dataset_size.DatasetSizeOptions(runs=(runs[0],), out=tmp_path / "sizes")
    dataset_size.main(options)
    assert len(list((tmp_path / "sizes").glob("*.png"))) == 2


def test_small_images_do_not_grow_to_the_encoders_size():
    cifar, _, aid = (printed_rows(dataset)[0].true_bytes for dataset in paper.DATASETS)
    assert cifar == 50_000 * (3 * 32 * 32 + 196)
    assert aid == 8_500 * (3 * 224 * 224 + 196)
