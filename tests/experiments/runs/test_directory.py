import json
import signal
import subprocess
import sys

import pytest

from experiments.command.errors import UsageError
from experiments.runs.directory import (
    RunDirectory,
    differences,
    features_of,
    read_json,
    read_part,
    without_notes,
    write_json,
)
from experiments.runs.plan import Plan
from experiments.runs.remarks import say_once
from jist.metrics import SummaryError
from jist.models.fields import FieldError


def test_a_run_that_has_trained_keeps_its_configuration(tmp_path):
    config = {"experiment": "x", "head": {"epochs": 30, "hidden": (4, 3)}}
    run = RunDirectory(tmp_path / "r", config)
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    RunDirectory(tmp_path / "r", config)
    with pytest.raises(ValueError, match=r"head\.epochs is 30 there and 10 here"):
        RunDirectory(tmp_path / "r", {"experiment": "x", "head": {"epochs": 10, "hidden": (4, 3)}})


def test_a_number_may_grow_and_does_not_shrink_again(tmp_path):
    def open_with(head_epochs, epochs=3):
        return RunDirectory(
            tmp_path / "r",
            {"head": {"epochs": head_epochs}, "epochs": epochs},
            growing=("head.epochs",),
            reasons={"epochs": "it depends on the end"},
        )

    run = open_with(2)
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    run.note_features(tmp_path / "far")
    open_with(4)
    config = read_json(run.path / "config.json")
    assert without_notes(config) == {"head": {"epochs": 4}, "epochs": 3}
    assert config.keys() >= {"features_dir", "working_directory"}
    with pytest.raises(ValueError, match=r"remove it: head\.epochs is 4 there and 3 here$"):
        open_with(3)
    with pytest.raises(
        ValueError, match=r"remove it: epochs is 3 there and 4 here \(it depends on the end\)$"
    ):
        open_with(5, epochs=4)
    assert read_json(run.path / "config.json") == config


def test_a_mistyped_option_may_be_corrected_before_the_first_epoch(tmp_path):
    RunDirectory(tmp_path / "r", {"mask_ratio": 1.5})
    RunDirectory(tmp_path / "r", {"mask_ratio": 0.5})
    assert without_notes(read_json(tmp_path / "r" / "config.json")) == {"mask_ratio": 0.5}


def test_features_far_away_are_noted_as_they_are_and_change_no_configuration(tmp_path):
    run = RunDirectory(tmp_path / "runs/r", {"mask_ratio": 0.5})
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert features_of(run.path) == run.path / "features"
    (tmp_path / "far").mkdir()
    run.note_features(tmp_path / "far")
    assert features_of(run.path) == tmp_path / "far"
    RunDirectory(tmp_path / "runs/r", {"mask_ratio": 0.5})
    (tmp_path / "far").rmdir()
    assert features_of(run.path) == run.path / "features"


def test_other_devices_are_told_once_and_change_no_configuration(tmp_path, capsys):
    run = RunDirectory(tmp_path / "r", {"mask_ratio": 0.5})
    (run.path / "metrics.jsonl").write_text('{"run": "a", "epoch": 1}\n')
    say_once.cache_clear()
    for training, count, epochs in (("a", 4, 2), ("b", 2, 2), ("a", 4, 2), ("a", 3, 1)):
        run.note_devices(training, count, epochs)
    assert capsys.readouterr().out == ""  # the last has all epochs
    for count in (3, 3):
        run.note_devices("a", count, 2)
    said = "note: the training goes on with 3 device(s) in place of 4: the same results up to"
    assert capsys.readouterr().out == f"{said} rounding\n"
    RunDirectory(tmp_path / "r", {"mask_ratio": 0.5})


def test_results_are_added_one_by_one(tmp_path):
    run = RunDirectory(tmp_path / "r", {})
    for name, accuracy in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        run.add_result({"run": name, "best_test_accuracy": accuracy}, ["cat", "dog"])
    summary = read_json(tmp_path / "r" / "summary.json")
    assert summary["class_names"] == ["cat", "dog"]
    assert run.results()["a"]["best_test_accuracy"] == 0.3
    assert len(summary["results"]) == 2


def test_damaged_json_is_told(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(RuntimeError, match="a.json is damaged"):
        read_json(tmp_path / "a.json")


def test_two_programs_do_not_share_a_directory_and_a_killed_one_gives_it_back(tmp_path):
    program = (
        "import sys, time; from experiments.runs.directory import RunDirectory;"
        "RunDirectory(sys.argv[1], {}); print('open', flush=True); time.sleep(100)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RuntimeError, match=r"run_dir=.* is in use by another program"):
            RunDirectory(tmp_path / "r", {})
        other.send_signal(signal.SIGKILL)
    RunDirectory(tmp_path / "r", {})
    RunDirectory(tmp_path / "r", {})


def test_of_lists_of_trainings_only_the_field_that_differs_is_named():
    def config(*trainings):
        return {"trainings": [{"ratio": 0.5, "how": {"workers": n}} for n in trainings]}

    assert differences(config(1, 2, 4), config(1, 3, 4)) == [
        "trainings[1].how.workers is 2 there and 3 here"
    ]
    assert differences(config(1), config(1, 3)) == ["trainings[1] is here alone"]


@pytest.mark.parametrize("text", [b"[1]", b"null", b'{"a": "\xff"}'])
def test_json_that_is_no_object_is_told(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(RuntimeError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({}, "results must be a list, got None"),
        ({"results": [], "class_names": 3}, "class_names must be a list, got 3"),
        ({"results": [], "class_names": ["a", 3]}, r"class_names\[1\] must be a text, got 3"),
        ({"results": [{}]}, r"results\[0\]\.run is missing"),
    ],
)
def test_a_summary_that_lacks_a_field_is_told(tmp_path, summary, message):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(SummaryError, match=rf"summary\.json is damaged: {message}"):
        read_part(tmp_path, "summary.json")


def test_a_summary_without_results_is_of_no_finished_training(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for write in (lambda: None, lambda: write_json(tmp_path / "summary.json", {"results": []})):
        write()
        with pytest.raises(FileNotFoundError, match="no training of run_dir=.* finished yet"):
            read_part(tmp_path, "summary.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": None}, "head must be a JSON object, got None"),
        ({"head": {"hidden": "wide"}}, r"head\.hidden must be a list, got 'wide'"),
        ({"trainings": {}}, "trainings must be a list"),
        ({"trainings": [{"mask_ratio": 0.5}]}, r"trainings\[0\]\.how is missing"),
        (
            {"trainings": [{"mask_ratio": 0.5, "how": {"workers": 0}}]},
            r"trainings\[0\]\.how: workers must be at least 1, got 0",
        ),
    ],
)
def test_a_plan_that_lacks_a_field_is_told(change, message):
    config = {"experiment": "x", "images": {}, "head": {}, "trainings": []} | change
    with pytest.raises(FieldError, match=f"config.json: {message}") as told:
        Plan.from_config(config)
    assert not isinstance(told.value, UsageError)
