"""Runs whose data are found again from another working directory."""

import json
import pathlib
import wave
from typing import Any

import numpy as np
import pytest

from experiments.command.options import HeadOptions, ImageOptions, StrategyOptions
from experiments.runs.directory import RunDirectory, read_json, without_notes
from experiments.runs.inputs import open_inputs
from experiments.runs.plan import Plan, Training
from experiments.runs.trained import open_run
from jist.data import DataError


@pytest.fixture
def data(tmp_path):
    """Vectors, vectors with labels elsewhere, clips, and text with many labels."""
    root = tmp_path / "trained" / "data"
    root.mkdir(parents=True)
    x, y = np.eye(12, 4, dtype=np.float32), np.arange(12) % 2
    np.savez(root / "mine.npz", x=x, y=y)
    for split in ("a", "b"):
        np.save(root / f"{split}.npy", x)
    np.save(root / "classes.npy", y)
    for word in ("low", "high"):
        (root / "clips" / word).mkdir(parents=True)
        for speaker in range(12):
            path = root / "clips" / word / f"{speaker:08x}_nohash_0.wav"
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes(bytes(32_000))
    for split in ("train", "test"):
        (root / f"{split}.txt").write_text("2 4 3\n0,1 0:1 2:1\n2 1:1 3:1\n")
    return root


def begun(run_dir, images):
    """A run directory as a training begins it, in the working directory."""
    how = StrategyOptions(strategy="centralized", workers=1)
    plan = Plan(
        experiment="centralized",
        images=images,
        head=HeadOptions(),
        trainings=(Training(mask_ratio=0.0, how=how),),
    )
    return RunDirectory(run_dir, plan.config(), data_dir=images.data_dir)


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        ("features:data/mine.npz", {}),
        ("features:data/a.npy,data/b.npy", {"labels": "data/classes.npy"}),
        ("speech:data/clips", {}),
        ("xc:data", {}),
        ("xc:.", {"data_dir": "data"}),
        ("features:mine.npz", {"data_dir": "data"}),
        ("features:a.npy", {"data_dir": "data", "labels": "classes.npy"}),
    ],
)
def test_data_are_found_from_another_working_directory(
    data, tmp_path, monkeypatch, dataset, options
):
    there = data.parent
    given: dict[str, Any] = {
        name: pathlib.Path(of) if name == "data_dir" else of for name, of in options.items()
    }
    monkeypatch.chdir(there)
    begun(tmp_path / "r", ImageOptions(dataset=dataset, **given))
    (tmp_path / "other").mkdir()
    for where in (there, tmp_path / "other"):
        monkeypatch.chdir(where)
        opened = open_run(tmp_path / "r")
        assert opened.images.dataset == dataset  # by which features are kept
        assert open_inputs(opened.images).train_labels[0] > 0
    if "data_dir" not in options:  # another place that is given counts
        images = open_run(tmp_path / "r", there).images
        assert open_inputs(images).train_labels[0] > 0
    with pytest.raises((ValueError, DataError), match=r"does not exist|is none|holds no examples"):
        _ = open_inputs(open_run(tmp_path / "r", tmp_path / "other").images).train_labels


def test_where_the_data_were_is_a_note_that_changes_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = begun(tmp_path / "r", ImageOptions(dataset="aid", data_dir=tmp_path / "here"))
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    config = read_json(run.path / "config.json")
    assert config["data_dir"] == str(tmp_path / "here")
    assert "data_dir" not in without_notes(config)
    for other in (tmp_path / "there", None):
        begun(run.path, ImageOptions(dataset="aid", data_dir=other))
    assert open_run(run.path).images.data_dir == tmp_path / "here"
    assert open_run(run.path, tmp_path).images.data_dir == tmp_path


def test_a_run_that_grows_notes_where_its_data_are_now(tmp_path, monkeypatch):
    def opened(epochs, data_dir):
        return RunDirectory(
            tmp_path / "r", {"epochs": epochs}, growing=("epochs",), data_dir=data_dir
        )

    run = opened(1, tmp_path / "here")
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    opened(2, None)
    assert "data_dir" not in json.loads((run.path / "config.json").read_text())
    opened(3, tmp_path)
    assert json.loads((run.path / "config.json").read_text())["data_dir"] == str(tmp_path)
