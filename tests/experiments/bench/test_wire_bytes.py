"""What is sent is what is counted; the file says whether other traffic can have been counted."""

import json
import subprocess
import sys

import pytest
from shown import commands_of, run_with_others

from experiments.bench import wire_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_every_strategy_sends_what_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (arguments,) = commands_of("bench.wire_bytes")
    shorter = "--workers 2 --widths 768 64 10 --rounds 2 --local-steps 1 --out sent.json"
    run_with_others("bench.wire_bytes", [*arguments, *shorter.split()], monkeypatch)
    written = json.loads((tmp_path / "sent.json").read_text())
    assert [row["strategy"] for row in written["results"]] == [*wire_bytes.STRATEGIES]
    for row in written["results"]:
        assert row["counted_bytes"] > row["expected_bytes"]  # there are headers besides
        if written["own_namespace"]:
            assert row["difference"] < 0.1  # for a message is small


@pytest.mark.parametrize("own", [True, False])
def test_it_is_written_whether_the_namespace_was_their_own(own, tmp_path, monkeypatch):
    out = tmp_path / "wire_bytes.json"
    started = []

    def measure(command, **options):
        started.append(command)
        out.write_text('{"workers": 4, "results": []}')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(wire_bytes, "namespaces_allowed", lambda: own)
    monkeypatch.setattr(wire_bytes.subprocess, "run", measure)
    wire_bytes.main(wire_bytes.WireBytesOptions(out=out))
    assert json.loads(out.read_text()) == {"workers": 4, "results": [], "own_namespace": own}
    assert ("unshare" in started[0]) == own


def test_one_worker_sends_nothing():
    with pytest.raises(ValueError, match="workers must be at least 2, got 1"):
        wire_bytes.main(wire_bytes.WireBytesOptions(workers=1))
