"""Kills of one process among several: who is killed, how it is judged, and that trials go on."""

import json
import random
import subprocess
import sys
import time

import pytest
from shown import commands_of, run_with_others

from experiments import kills
from experiments.command.errors import UsageError

EPOCHS = [{"epoch": i, "train_loss": 1 / i, "test_loss": 2 / i, "round": i} for i in (1, 2)]
LAUNCHER = """
import subprocess, sys
wait = [sys.executable, "-c", "import sys; sys.stdin.read()", "--process-id"]
children = [subprocess.Popen([*wait, str(i), "--end"], stdin=subprocess.PIPE) for i in range(2)]
print("started", flush=True)
print([child.wait() for child in children[1:]], flush=True)
children[0].communicate()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_the_process_that_is_named_is_killed_and_no_other():
    given = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LAUNCHER], **given) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        assert not kills.kill(launcher.pid, 7)
        while not kills.kill(launcher.pid, 1):
            time.sleep(0.01)  # until it has begun
        assert launcher.communicate()[0] == "[-9]\n"
    assert not kills.kill(launcher.pid, 1)


def changed(by):
    return [EPOCHS[0], EPOCHS[1] | {"test_loss": EPOCHS[1]["test_loss"] * (1 + by)}]


@pytest.mark.parametrize(
    ("code", "found", "outcome"),
    [
        (0, EPOCHS, "same bits"),
        (0, changed(1e-6), "rounding"),
        (0, changed(1e-2), "lost"),
        (0, EPOCHS[:1], "lost"),
        (1, EPOCHS, "lost"),
    ],
)
def test_outcomes_are_told_apart(code, found, outcome):
    assert kills.judged(code, found, EPOCHS) == outcome


def test_every_process_is_killed_as_often_and_trials_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = []

    def killed(training, process, chance, whole):
        begun.append((process, chance.random()))
        return {"process": process, "epochs_reached": 3, "outcome": "same bits"}

    monkeypatch.setattr(kills.Training, "undisturbed", lambda training: (EPOCHS, 1.0))
    monkeypatch.setattr(kills.Training, "killed", killed)
    for arguments in commands_of("kills"):
        words = [*arguments, "--processes", "2", "--trials"]
        run_with_others("kills", [*words, "1"], monkeypatch)
        run_with_others("kills", [*words, "2"], monkeypatch)
        assert [process for process, _ in begun] == [0, 1, 0, 1]
        assert len(set(begun)) == 4
        begun.clear()
    written = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").iterdir())]
    assert [(of["elastic"], len(of["trials"])) for of in written] == [(True, 4), (False, 4)]
    for other, message in (
        ({"processes": 2, "elastic": True}, "holds trials of --elastic False, got True"),
        ({"processes": 3}, "holds trials of --processes 2, got 3"),
        ({"processes": 2, "seed": 1}, "holds trials of --seed 0, got 1"),
    ):
        with pytest.raises(UsageError, match=message):
            kills.main(kills.KillsOptions(out=tmp_path / "runs/kills.json", **other))


LAUNCHED = """
import pathlib, sys
elastic = "--elastic" in sys.argv
run_dir = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1])
run_dir.mkdir(parents=True)
again = "starting all again, {} of 3" + (", in {} processes" if elastic else "")
for restart, left in ((1, 3), (2, 2)):
    print("a process ended with exit code 9:", again.format(restart, left), file=sys.stderr)
(run_dir / "metrics.jsonl").write_text(
    '{"run": "one", "epoch": 1, "train_loss": 1.0, "test_loss": 2.0, "test_accuracy": 0.75}\\n'
)
"""


@pytest.mark.parametrize("elastic", [False, True])
def test_what_the_launcher_says_is_written_down(tmp_path, monkeypatch, elastic):
    """A stand-in of the launcher writes one epoch, and says that it began again twice."""
    (tmp_path / "launch.py").write_text(LAUNCHED)

    def begun(words, **given):
        return started([sys.executable, str(tmp_path / "launch.py"), *words[3:]], **given)

    started = subprocess.Popen
    monkeypatch.setattr(kills.subprocess, "Popen", begun)
    training = kills.Training(tmp_path, 4, 1, elastic)
    expected = [{"run": "one", "epoch": 1, "train_loss": 1.0, "test_loss": 2.0001}]
    expected = [expected[0] | {"test_accuracy": 0.7}]
    trial = training.killed(2, random.Random(0), (expected, 0.2))
    assert trial["restarts"] == 2
    assert trial["processes_left"] == ([3, 2] if elastic else [])
    assert (trial["last_test_accuracy"], trial["undisturbed_test_accuracy"]) == (0.75, 0.7)
    assert trial["outcome"] == "rounding"
