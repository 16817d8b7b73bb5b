"""The chaos script counts rightly: on a training that is killed, and on made-up ones."""

import json
import random

import pytest
from shown import commands_of, run_with_others

from experiments import chaos

EXPECTED = [(1, 0.5, 0.5), (2, 0.25, 0.25)]


def files_of(run_dir):
    return {p.relative_to(run_dir): p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}


def a_run(run_dir, epochs):
    for name in ("checkpoints/t/1/metrics/metrics", "checkpoints/t/1/state/d/a"):
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text("content")
    chunk = run_dir / "features/digits-train/label/c/0"
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_text("content")
    (run_dir / "config.json").write_text("content")
    lines = [
        json.dumps({"run": "t", "epoch": epoch, "train_loss": of, "test_loss": of})
        for epoch, of, _ in EXPECTED[:epochs]
    ]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", [name for name in chaos.DAMAGES if name != "nothing"])
def test_a_damage_changes_one_file_and_says_where_there_is_none(tmp_path, name):
    assert not chaos.DAMAGES[name](tmp_path, random.Random(0))
    a_run(tmp_path, 1)
    before = files_of(tmp_path)
    assert chaos.DAMAGES[name](tmp_path, random.Random(0))
    after = files_of(tmp_path)
    assert sum(after.get(path) != content for path, content in before.items()) == 1


@pytest.mark.parametrize(
    ("code", "epochs", "said", "outcome"),
    [
        (0, 2, "", "same bits"),
        (0, 1, "", "lost"),
        (1, 1, "error: x is damaged\n", "told"),
        (1, 1, "Traceback ...\nerror: x\n", "lost"),
        (2, 1, "error: x\n", "lost"),
        (-11, 1, "", "lost"),
    ],
)
def test_outcomes_are_told_apart(tmp_path, monkeypatch, code, epochs, said, outcome):
    calls = stand_in(monkeypatch, [(-9, 1, ""), (code, epochs, said)])
    trial = chaos.attempt((), tmp_path / "r", "nothing", (1, 0.0), EXPECTED, random.Random(0))
    assert trial["outcome"] == outcome
    assert (trial["epochs_reached"], calls) == (1, [None, None])


@pytest.mark.parametrize(
    ("code", "said", "damage", "outcome"),
    [
        (1, "error: File too large: 'x'\n", chaos.FULL, "same bits"),
        (0, "", "none: nothing there yet", "same bits"),
        (1, "Traceback ...\nerror: x\n", chaos.FULL, "lost"),
        (134, "", chaos.FULL, "lost"),
    ],
)
def test_what_cannot_be_written_must_be_told(tmp_path, monkeypatch, code, said, damage, outcome):
    calls = stand_in(monkeypatch, [(code, 1 if code else 2, said), (0, 2, "")])
    trial = chaos.attempt((), tmp_path / "r", chaos.FULL, (1, 0.0), EXPECTED, random.Random(0))
    assert (trial["damage"], trial["outcome"]) == (damage, outcome)
    assert 1000 <= calls[0] < 10**6
    assert calls[1:] == ([] if outcome == "lost" else [None])


def stand_in(monkeypatch, runs):
    """Trainings that end as they are given; returns the sizes that their files may have."""
    calls = []

    class Child:
        def __init__(self, command, run_dir, most_bytes=None):
            self.returncode, epochs, self.said = runs[len(calls)]
            calls.append(most_bytes)
            a_run(run_dir, epochs)

        def poll(self):
            return self.returncode

        def kill(self):
            pass

        def communicate(self):
            return self.said, None

    monkeypatch.setattr(chaos, "begun", Child)
    return calls


def test_no_file_of_a_training_grows_beyond_what_it_may(tmp_path):
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('x' * 2000)"
    code, said = chaos.ended(chaos.begun(("-c", write), tmp_path / "x", 1000))
    assert (code, "File too large" in said) == (1, True)
    assert (tmp_path / "x").stat().st_size == 1000


def test_the_command_trains_and_writes_what_it_counts(tmp_path, monkeypatch):
    """In no time there is the undisturbed training alone; kills are tested where they fall."""
    monkeypatch.chdir(tmp_path)
    (arguments,) = commands_of("chaos")
    words = [*arguments, "--epochs", "2", "--minutes", "1e-9", "--out", "chaos.json"]
    run_with_others("chaos", words, monkeypatch)
    written = json.loads((tmp_path / "chaos.json").read_text())
    assert written["trials"] == []
    assert written["commit"]
