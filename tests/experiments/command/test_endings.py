"""How a script ends that is interrupted, or whose reader has seen enough."""

import os
import pathlib
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

import experiments

ROOT = pathlib.Path(__file__).parents[3]
# A script as ours are, whose imports and whose work take long; both say when they begin.
SCRIPT = """
import sys, time
import experiments
if "import" in sys.argv:
    sys.argv.remove("import")
    print("ready", flush=True)
    time.sleep(60)
from experiments.command.cli import Options, run

def main(options):
    if "print" in ACTS:
        for number in range(100_000):
            print("line", number)
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        if "slow" in ACTS:
            print("ending", flush=True)
            time.sleep(60)

ACTS, sys.argv[1:] = sys.argv[1:], []
run(main, Options, "")
"""


def start(*acts):
    # What a shell starts in the background ignores SIGINT, and so would all that is started there.
    def hear_interrupts():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *acts],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )


@pytest.mark.parametrize("acts", [("import",), (), ("slow",)])
def test_an_interrupted_script_ends_quietly(acts):
    """During imports, during its work, and again while it ends."""
    child = start(*acts)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    if "slow" in acts:
        assert child.stdout.readline() == "ending\n"
        child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    again = " again" if "slow" in acts else ""
    assert (child.returncode, err) == (130, f"interrupted{again}\n")


def test_what_follows_a_failed_checkpoint_is_not_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "__unraisablehook__", shown.append)
    given = [SimpleNamespace(exc_value=RuntimeError(of)) for of in ("Event loop is closed", "x")]
    for error in given:
        experiments._once(error)
    assert shown == given[1:]


def test_a_reader_that_has_seen_enough_is_no_failure():
    child = start("print")
    assert child.stdout.readline() == "line 0\n"
    child.stdout.close()
    err = child.stderr.read()
    assert (child.wait(30), err) == (128 + signal.SIGPIPE, "")
    child.stderr.close()
