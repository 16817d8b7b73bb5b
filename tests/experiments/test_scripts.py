"""The scripts as a user runs them, on small images on disk."""

import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from shown import commands_of

from experiments import (
    centralized,
    compare,
    distributed,
    evaluate,
    extract,
    predict,
    quickstart,
)
from experiments.command import cli
from experiments.command.options import HeadOptions, ImageOptions, StrategyOptions
from experiments.figures import plots
from experiments.figures.choice import chosen_training
from experiments.runs.images import RANDOM_ENCODERS
from experiments.runs.plan import Plan, Training
from experiments.runs.trained import HeadRun
from experiments.runs.vectors import VectorInputs
from jist.data import UnreadableImageError
from jist.models import ViTConfig


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of noise around three colours, 16 pixels wide."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, colour in (("red", (200, 60, 60)), ("green", (60, 200, 60)), ("blue", (60, 60, 200))):
        (root / name).mkdir()
        for i in range(20):
            pixels = np.clip(generator.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script; returns its exit code, its output and its messages."""

    def call(script, *arguments):
        options = next(
            value
            for name, value in vars(script).items()
            if name.endswith("Options")
            and isinstance(value, type)
            and value.__module__ == script.__name__
        )
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        code = 0
        try:
            cli.run(script.main, options, script.__doc__ or "")
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def drawn(monkeypatch):
    """Gives the lines of every panel of the last figure, by their labels, as points [x, y]."""
    figures = []

    def figure(**options):
        figures.append(Figure(**options))
        return figures[-1]

    for script in (plots, compare):
        monkeypatch.setattr(script, "Figure", figure)
    return lambda: [
        {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in panel.lines}
        for panel in figures[-1].axes
    ]


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """The smallest of the random encoders is smaller here, and compiled in less time."""
    encoder = ViTConfig(image_size=32, patch_size=4, dim=16, depth=1, heads=1, mlp_dim=16)
    monkeypatch.setitem(RANDOM_ENCODERS, "random-nano", lambda: encoder)


SMALL = ("--hidden", 12, 9, "--batch-size", 8, "--epochs", 2, "--local-steps", 3, "--workers", 2)
SMALL += ("--encoder", "random-nano")


def test_train_evaluate_and_predict(run, images, tmp_path, monkeypatch):
    monkeypatch.chdir(images.parent)
    own = ("--dataset", f"folder:{images.name}", "--run-dir", tmp_path / "r")
    arguments = (*own, *SMALL)
    code, out, err = run(distributed, *arguments)
    assert (code, err) == (0, "")
    assert "randomly initialised, not pre-trained" in out
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["class_names"] == ["blue", "green", "red"]
    (result,) = summary["results"]
    assert result["parameters_per_worker"] == 16 * 6 + 6 * 5 + 5 * 3 + 3
    last = json.loads((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] == result["last_test_accuracy"]

    monkeypatch.chdir(tmp_path)  # the data are found from anywhere
    code, _, err = run(evaluate, "--run-dir", tmp_path / "r")
    assert (code, err) == (0, "")
    evaluation = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    (measured,) = evaluation.values()
    assert measured["test_accuracy"] == last["test_accuracy"]
    assert measured["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    mean = np.mean(list(measured["class_accuracy"].values()))  # classes of one size
    assert mean == pytest.approx(measured["test_accuracy"])

    given = (images / "red" / "00.png", images / "blue")
    code, out, err = run(predict, "--run-dir", tmp_path / "r", "--images", *given, "--json-lines")
    assert code == 0
    assert err.startswith("of 21 in folders of their classes ")
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 21
    for record in records:
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert record["probability"] == record["probabilities"][record["class"]]

    # Masks follow what a picture shows, not what its file is called.
    for name in ("one.png", "other.PNG"):
        shutil.copy(given[0], tmp_path / name)
    (tmp_path / "broken.png").write_text("none")
    pictures = ("--images", *(tmp_path / n for n in ("one.png", "broken.png", "other.PNG")))
    drawn = ("--run-dir", tmp_path / "r", *pictures, "--skip-unreadable", "--draws", 3)
    code, out, err = run(predict, *drawn)
    one, other = (line.split("\t") for line in out.splitlines())
    assert (code, one[1:]) == (0, other[1:])
    assert float(one[3].removeprefix("± ")) > 0
    assert "skipped: cannot read image" in err
    nothing = ("--run-dir", tmp_path / "r", "--images", tmp_path / "broken.png")
    table = ("--skip-unreadable", "--out", tmp_path / "nothing.csv")
    code, _, err = run(predict, *nothing, *table)
    assert (code, "error: none of the images can be read, given" in err) == (1, True)
    assert not (tmp_path / "nothing.csv").exists()
    odd = tmp_path / os.fsdecode(b"a\tb\n\xff.png")
    shutil.copy(given[0], odd)
    code, out, _ = run(predict, "--run-dir", tmp_path / "r", "--images", odd)
    assert (code, out.count("\n"), out.count("\t")) == (0, 1, 2)
    assert "a\\tb\\n\\udcff.png\t" in out.encode("utf-8", "backslashreplace").decode()
    code, _, err = run(
        predict, "--run-dir", tmp_path / "r", "--images", odd, "--out", tmp_path / "odd.parquet"
    )
    assert (code, err) == (0, "")
    (name,) = pd.read_parquet(tmp_path / "odd.parquet")["image"]
    assert name.endswith("a\tb\n\\udcff.png")
    whole = (*drawn, "--mask-ratio", 0, "--json-lines")
    code, out, _ = run(predict, *whole)
    assert [json.loads(line)["spread"] for line in out.splitlines()] == [0, 0]
    out = "\n".join(map(json.dumps, records))

    predicted = ("--run-dir", tmp_path / "r", "--images", images / "blue")
    last_said = [line for line in out.splitlines() if "/blue/" in line]
    code, out, err = run(predict, *predicted, "--json-lines", "--training", result["run"])
    assert (code, out.splitlines()) == (0, last_said)
    code, out, err = run(predict, *predicted, "--checkpoint", "best")
    assert (code, len(out.splitlines())) == (0, 20)
    code, out, err = run(predict, *predicted, "--top-k", 2, "--out", tmp_path / "p.parquet")
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert [*table.columns] == ["image", "true", "class", "probability", "class_2", "probability_2"]
    assert (table["probability"] >= table["probability_2"]).all()
    right = (table["true"] == table["class"]).mean()
    assert err == f"of 20 in folders of their classes {right:.1%} are right\n"
    for wrong, message in (
        (("--training", "ist-9"), f"training must be one of ['{result['run']}'], got 'ist-9'"),
        (("--batch-size", 0), "batch_size must be at least 1, got 0"),
        (("--draws", 0), "draws must be at least 1, got 0"),
        (("--mask-ratio", 1), "mask_ratio must lie in [0, 1), got 1"),
        (("--top-k", 0), "top_k must be at least 1, got 0"),
        (("--out", "p.txt"), "out must end in .csv, .jsonl, .parquet, got p.txt"),
        (("--checkpoint", "first"), 'checkpoint must be "last" or "best", got'),
        (("--json-lines", "--out", "p.csv"), "--json-lines has no effect with --out"),
    ):
        code, _, err = run(predict, *predicted, *wrong)
        assert code == 2
        assert message in err
    code, _, err = run(evaluate, "--run-dir", tmp_path / "r", "--checkpoint", "best")
    assert (code, err) == (0, "")
    (measured,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    assert measured["test_accuracy"] == result["best_test_accuracy"]
    confusion = np.array(measured["confusion"])
    assert confusion.sum(axis=1).tolist() == [4, 4, 4]
    assert confusion.trace() / 12 == pytest.approx(measured["test_accuracy"])
    assert measured["calibration"]["uncalibrated"]["ece"] == measured["test_ece"]
    check_other_conditions(run, images, tmp_path, measured["test_accuracy"])

    monkeypatch.chdir(images.parent)
    code, out, _ = run(distributed, *arguments)
    assert code == 0
    assert "nothing to do" in out

    # An encoder that was replaced under its name is another encoder.
    file = tmp_path / "r" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"encoder_sha256": "0" * 64}))
    for script in (evaluate, predict):
        of_images = ("--images", images) if script is predict else ()
        code, _, err = run(script, "--run-dir", tmp_path / "r", *of_images)
        assert code == 2
        assert "encoder: not what the run began with" in err
    file.write_text(json.dumps(config))

    code, _, err = run(distributed, *arguments, "--seed", 1)
    assert code == 2
    assert "belongs to another configuration" in err
    assert "images.seed is 0 there and 1 here" in err


def check_other_conditions(run, images, tmp_path, own):
    """On other masks, clouds and folders; at the run's own ratio it is the same as without."""
    base = ("--run-dir", tmp_path / "r", "--checkpoint", "best")
    table = tmp_path / "e.csv"
    sheet = tmp_path / "mistakes.png"
    ratios = ("--mask-ratio", 0, 0.75, "--out", table, "--mistakes", sheet)
    code, _, err = run(evaluate, *base, *ratios)
    assert (code, err) == (0, "")
    found = pd.read_csv(table)
    assert found["ratio"].tolist() == [0, 0.75]
    assert found["test_accuracy"][1] == own
    assert {"precision red", "recall blue", "f1 green", "test_ece"} <= {*found.columns}
    assert (tmp_path / "r" / "curve.png").exists()
    if found["test_accuracy"][0] < 1:
        assert sheet.read_bytes().startswith(b"\x89PNG")

    # Another folder of fewer classes: all of its images; and half of each under clouds.
    for name in ("red", "blue"):
        shutil.copytree(images / name, tmp_path / "others" / name)
    other = ("--dataset", f"folder:{tmp_path}/others", "--out", tmp_path / "e.json")
    code, _, err = run(evaluate, *base, *other, "--simulate-clouds", 0.2)
    assert (code, err) == (0, "")
    (measured,) = json.loads((tmp_path / "e.json").read_text())
    assert measured["classes"]["green"]["examples"] == 0
    assert 30 < measured["examples"] <= 40
    assert measured["ratio"] > 0.2
    shutil.copytree(images / "red", tmp_path / "others" / "pink")
    for wrong, message in (
        (other, "has classes that the run does not know: pink"),
        (("--dataset", "features:x.npz"), "features:x.npz"),
        (("--max-missing", 0.5), "--max-missing needs"),
        (("--out", "e.txt"), "out must end in .csv, .json, .parquet"),
        (("--mistakes", "e.txt"), "mistakes must end in .png"),
    ):
        code, _, err = run(evaluate, *base, *wrong)
        assert code == 2
        assert message in err


def test_features_are_shared_between_scripts(run, images, tmp_path):
    data = ("--dataset", f"folder:{images}", "--mask-ratio", 0.75)
    shared = ("--features-dir", tmp_path / "features")
    code, out, _ = run(extract, *data, *shared)
    assert code == 0
    assert "train: 48 vectors of 192 numbers, 0 examples skipped" in out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("c/**/*")}
    head = ("--hidden", 5, "--batch-size", 8, "--epochs", 1)
    code, _, err = run(centralized, *data, *shared, *head, "--run-dir", tmp_path / "r")
    assert (code, err) == (0, "")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("c/**/*")}
    assert after == before
    assert not (tmp_path / "r" / "features").exists()
    assert json.loads((tmp_path / "r" / "config.json").read_text())["features_dir"] == "../features"
    # The run is evaluated on these features, also after both have moved, and works without them.
    (tmp_path / "moved").mkdir()
    for name in ("r", "features"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    for there in (False, True):
        code, _, err = run(evaluate, "--run-dir", tmp_path / "moved" / "r")
        assert (code, err) == (0, "")
        assert (tmp_path / "moved" / "r" / "features").exists() == there
        if not there:
            (tmp_path / "moved" / "features").rename(tmp_path / "gone")


@pytest.mark.parametrize(
    ("validation", "checkpoint", "chosen"), [(0, "last", "a"), (0, "best", "b"), (0.1, "last", "c")]
)
def test_the_best_training_is_that_of_what_is_asked_for(tmp_path, validation, checkpoint, chosen):
    how = {name: StrategyOptions(strategy=name) for name in "abc"}
    trainings = tuple(Training(mask_ratio=0.5, how=how[name]) for name in "abc")
    head = HeadOptions(validation=validation)
    plan = Plan(experiment="x", images=ImageOptions(), head=head, trainings=trainings)
    accuracies = [(0.9, 0.9, 0.1), (0.5, 1.0, 0.2), (0.5, 0.5, 0.3)]
    names = ("last_test_accuracy", "best_test_accuracy", "best_validation_accuracy")
    results = [
        {"run": training.name} | dict(zip(names, some, strict=True))
        for training, some in zip(trainings, accuracies, strict=True)
    ]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "summary.json").write_text(json.dumps({"results": results}))
    trained = HeadRun(tmp_path, plan, plan.images, VectorInputs(plan.images, []))
    found = chosen_training(trained, tmp_path, None, checkpoint)
    assert found == trainings["abc".index(chosen)].name
    assert chosen_training(trained, tmp_path, trainings[0].name, "last") == trainings[0].name
    with pytest.raises(ValueError, match="training must be one of .*'a-4-.*, got 'd'"):
        chosen_training(trained, tmp_path, "d", "last")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mask-ratio", 1.5), "ratio must lie in [0, 1), got 1.5"),
        (("--seed", -1), "seed must lie in [0, 2**32), got -1"),
        (("--epochs", 0), "epochs must be at least 1, got 0"),
        (("--mask-ratio", 0.999), "ratio 0.999 keeps none of the 64 patches"),
        (
            ("--batch-size", 1000),
            "--batch-size 1000 of 2 worker(s) needs 2000 training examples, there",
        ),
        (("--workers", 4, "--devices", 3), "workers must be a multiple of devices, got 4 workers"),
        (("--workers", 2, "--devices", 4), "workers must be a multiple of devices, got 2 workers"),
        (("--workers", 10), "workers must be between 1 and the 9 neurons of 'hidden2', got 10"),
        (("--encoder", "random-huge"), "encoder must be a directory or one of"),
        (("--dataset", "mnist"), "dataset must be"),
        (("--strategy", "magic"), "strategy must be one of"),
        (("--norm", "batch"), "norm must be one of"),
        (
            ("--shares", "nan,0.5"),
            "shares must be 2 positive numbers that sum to 1, got (nan, 0.5)",
        ),
        (
            ("--strategy", "ensemble", "--shares", "1,2"),
            "shares=1,2 cannot be used with --strategy",
        ),
        (
            ("--strategy", "local_sgd", "--exchange-dtype", "bfloat16"),
            "exchange_dtype=bfloat16 cannot be used with --strategy local_sgd",
        ),
        (("--strategy", "data_parallel", "--participation", 0.5), "participation=0.5 cannot be"),
        (("--participation", 2), "participation must lie in (0, 1], got 2.0"),
        (("--outer", "adam"), "outer must be one of ('none', 'nesterov'), got 'adam'"),
        (("--outer-lr", 0.5), "--outer-lr 0.5 needs --outer nesterov with --strategy ist"),
        (("--strategy", "diloco", "--outer-momentum", 1), "outer_momentum must lie in [0, 1), got"),
    ],
)
def test_wrong_options_end_with_one_message_and_code_2(run, images, tmp_path, arguments, message):
    base = ("--dataset", f"folder:{images}", "--run-dir", tmp_path / "r", *SMALL)
    code, _, err = run(distributed, *base, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("metrics.jsonl"))
    assert not list(tmp_path.rglob("cls")), "images were encoded first"


def test_an_unreadable_image_is_named_or_skipped(run, images, tmp_path):
    root = tmp_path / "images"
    for path in images.rglob("*.png"):
        copy = root / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "red" / "05.png").write_bytes((images / "red" / "05.png").read_bytes()[:100])
    base = ("--dataset", f"folder:{root}", "--features-dir", tmp_path / "features")
    code, _, err = run(extract, *base)
    assert code == 1
    assert str(root / "red" / "05.png") in err
    assert "Traceback" not in err
    assert err.endswith("; --skip-unreadable leaves such images out, and lists them\n")
    code, out, _ = run(extract, *base, "--skip-unreadable")
    assert code == 0
    assert f"skipped, unreadable: {root / 'red' / '05.png'}" in out
    assert "1 examples skipped" in out


def test_an_empty_class_directory_is_told(run, images, tmp_path):
    (tmp_path / "images" / "empty").mkdir(parents=True)
    (tmp_path / "images" / "red").symlink_to(images / "red")
    code, _, err = run(
        extract, "--dataset", f"folder:{tmp_path / 'images'}", "--features-dir", tmp_path / "f"
    )
    assert code == 1
    assert f"class directory {tmp_path / 'images' / 'empty'} holds no image" in err


def test_a_missing_run_and_a_missing_checkpoint_are_told(run, images, tmp_path):
    code, _, err = run(evaluate, "--run-dir", tmp_path / "nothing")
    assert code == 1
    assert "nothing is no run directory: config.json is missing\n" in err
    arguments = ("--dataset", f"folder:{images}", "--run-dir", tmp_path / "r", *SMALL)
    assert run(distributed, *arguments)[0] == 0
    (checkpoint,) = (tmp_path / "r" / "checkpoints").glob("*")
    checkpoint.rename(tmp_path / "elsewhere")
    code, _, err = run(evaluate, "--run-dir", tmp_path / "r")
    assert code == 1
    assert "no checkpoints" in err
    (tmp_path / "r" / "summary.json").unlink()
    for script, more in ((evaluate, ()), (predict, ("--images", images))):
        code, _, err = run(script, "--run-dir", tmp_path / "r", *more)
        assert (code, err) == (
            1,
            f"error: no training of run_dir={tmp_path}/r has been finished yet\n",
        )
        code, _, err = run(script, "--run-dir", tmp_path, *more)
        assert code == 1
        assert "is no run directory: config.json is missing; it holds some: r\n" in err
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "config.json").write_text(json.dumps({"experiment": "pretrain"}))
    code, _, err = run(evaluate, "--run-dir", tmp_path / "p")
    assert code == 2
    assert "a script that trains classifiers, got one of experiments.pretrain" in err


def test_what_is_not_done_is_left_out_of_the_evaluation(run, images, tmp_path):
    arguments = ("--dataset", f"folder:{images}", "--run-dir", tmp_path / "r", *SMALL)
    assert run(distributed, *arguments)[0] == 0
    file = tmp_path / "r" / "config.json"
    config = json.loads(file.read_text())
    config["trainings"].append(config["trainings"][0] | {"mask_ratio": 0.5})
    file.write_text(json.dumps(config))
    code, out, err = run(evaluate, "--run-dir", tmp_path / "r")
    assert (code, err) == (0, "")
    assert "left out, not trained to the end: ist-2-ratio-0.5" in out
    assert list(json.loads((tmp_path / "r" / "evaluation.json").read_text())) == [
        "ist-2-ratio-0.75"
    ]


def test_every_error_says_something():
    assert cli.message_of(cli.UsageError("n must be positive")) == "n must be positive"
    assert cli.message_of(ValueError("buffer\nis full")) == "ValueError: buffer is full"
    assert cli.message_of(FileNotFoundError(2, "No such file", "a/b")) == "a/b: No such file"
    assert cli.message_of(KeyError("head")) == "KeyError: 'head'"
    assert cli.message_of(MemoryError()) == "MemoryError"


def test_options_that_help_are_named_where_a_script_has_them():
    unreadable = UnreadableImageError("cannot read image a.png: cut short")
    assert cli.way_out(unreadable, ImageOptions).startswith("; --skip-unreadable leaves")
    deep = UnreadableImageError("it holds 16-bit grey: read as bands they need a scale")
    assert "--bands 1,1,1 --scale 0,4000; --skip-unreadable" in cli.way_out(deep, ImageOptions)
    for error, options in ((unreadable, HeadOptions), (MemoryError(), ImageOptions)):
        assert cli.way_out(error, options) == ""


def test_debug_shows_the_traceback(run, tmp_path):
    with pytest.raises(ValueError, match="dataset must be"):
        run(extract, "--dataset", "mnist", "--features-dir", tmp_path, "--debug")


def test_quickstart_fills_its_table_and_finds_its_work_done(run, drawn, tmp_path):
    (arguments,) = commands_of("quickstart")
    arguments += ("--run-dir", tmp_path / "q", "--epochs", 1, "--encoder", "random-nano")
    code, out, err = run(quickstart, *arguments)
    assert (code, err) == (0, "")
    assert f"{16 * 500 + 500 * 500 + 500 * 10 + 10:,}" in out  # parameters of one of two workers
    summary = json.loads((tmp_path / "q" / "summary.json").read_text())
    curves = {"centralized": [], "ist, 2 workers": [], "ist, 4 workers": []}
    for result in summary["results"]:
        name, workers = result["strategy"], result["workers"]
        of = name if workers == 1 else f"{name}, {workers} workers"
        curves[of].append([result["ratio"], result["last_test_accuracy"]])
    assert drawn() == [curves]
    assert [ratio for ratio, _ in curves["ist, 4 workers"]] == [0, 0.5, 0.75]
    assert {"accuracy.png", "config.json", "metrics.jsonl", "checkpoints", "summary.json"} <= {
        path.name for path in (tmp_path / "q").iterdir()
    }
    code, out, _ = run(quickstart, *arguments)
    assert code == 0
    assert "nothing to do" in out


def test_compare_reads_both_comparisons_off_one_training(run, images, drawn, tmp_path):
    arguments = ("--dataset", f"folder:{images}", "--run-dir", tmp_path / "c", "--epochs", 1)
    arguments += ("--strategies", "ist", "--encoder", "random-nano")
    small = ("--hidden", 6, "--batch-size", 8, "--workers", 2)
    code, out, err = run(compare, *arguments, *small)
    assert (code, err) == (0, "")
    assert "ist, no norm" in out
    lines = [json.loads(s) for s in (tmp_path / "c" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["run"], line["epoch"]) for line in lines] == [
        (f"ist-2-ratio-0.75-each{own}", epoch) for own in ("", "-norm-none") for epoch in (1, 2)
    ]
    first, second, first_unnormed, second_unnormed = (line["test_accuracy"] for line in lines)
    assert drawn() == [
        {"ist": [[2, first]], "ist, no norm": [[2, first_unnormed]]},
        {"ist": [[2, second]], "ist, no norm": [[2, second_unnormed]]},
    ]
    assert (tmp_path / "c" / "comparison.png").is_file()

    # More epochs extend it: those that are there are not trained again.
    longer = (*arguments, *small, "--epochs", 2)
    assert run(compare, *longer)[0] == 0
    again = [json.loads(s) for s in (tmp_path / "c" / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in again if line["epoch"] <= 2] == lines
    ends = {line["run"]: line["test_accuracy"] for line in again if line["epoch"] == 4}
    assert [[2, accuracy] for accuracy in ends.values()] == [
        *drawn()[1]["ist"],
        *drawn()[1]["ist, no norm"],
    ]

    code, _, err = run(evaluate, "--run-dir", tmp_path / "c")
    assert (code, err) == (0, "")
    evaluation = json.loads((tmp_path / "c" / "evaluation.json").read_text())
    for training, accuracy in ends.items():  # with the norm that each was trained with
        assert evaluation[training]["test_accuracy"] == accuracy
