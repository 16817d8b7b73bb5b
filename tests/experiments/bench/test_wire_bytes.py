"""The file says whether other traffic can have been counted."""

import json
import subprocess

import pytest

from experiments.bench import wire_bytes


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
