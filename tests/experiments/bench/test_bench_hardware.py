"""Results say on what machine, with what devices and by what code they were measured."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import types

import jax
import pytest

from experiments.bench import hardware
from experiments.command import cpu


def test_the_machine_is_told_with_its_devices_and_flags(monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=2 --xla_dump_to=/home/me --xla_b=runs/x /etc/flags")
    found = json.loads(json.dumps(hardware.machine()))
    assert found["device_count"] == jax.device_count()
    assert found["environment"] == {
        "XLA_FLAGS": "--xla_a=2 --xla_dump_to=PATH --xla_b=PATH PATH",
        "JAX_NUM_CPU_DEVICES": "3",
    }
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    assert hardware.machine()["environment"].keys() == {"XLA_FLAGS"}


def test_the_machine_is_told_of_a_checkout_and_of_systems_that_tell_less(monkeypatch):
    installed = importlib.metadata.version

    def version(name):
        if name == "jist":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.11" if name == "jax-cuda13-plugin" else installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    torch = types.SimpleNamespace(version=types.SimpleNamespace(cuda="13.0"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = hardware.machine()
    assert found["cores"] == os.cpu_count()
    assert "jist" not in found["versions"]
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["jax-cuda13-plugin"] == "0.11"
    assert found["versions"]["torch_cuda"] == "13.0"


def test_pytorch_is_told_to_leave_float32_whole(monkeypatch):
    torch = pytest.importorskip("torch", reason="the other variant")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    hardware.take_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_all_ask_one_reader_what_the_processor_is(monkeypatch, tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some: CPU\nflags\t\t: avx amx_bf16 sse\n\n")
    monkeypatch.setattr(cpu, "CPUINFO", told)
    assert hardware.machine()["processor"] == "Some: CPU"
    assert hardware.machine()["vector_units"] == ["amx_bf16"]
    assert cpu.has_matrix_unit()
    told.write_text("flags : avx amx_bf16x\n")
    assert not cpu.has_matrix_unit()
    told.unlink()
    assert cpu.processor_facts() == {}
    assert not cpu.has_matrix_unit()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_told_and_whether_code_differs_from_it(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("GIT_"):  # as hooks of git set
            monkeypatch.delenv(name)
    file = tmp_path / "experiments" / "hardware.py"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.setattr(hardware, "__file__", str(file))
    assert hardware.commit() is None

    def git(*arguments):
        identity = ["-c", "user.name=a test", "-c", "user.email=test@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    assert hardware.commit() is None  # somebody else's checkout
    git("add", ".")
    git("commit", "-m", "first")
    first = git("rev-parse", "HEAD")
    assert first.startswith(hardware.commit())
    (tmp_path / "README.md").write_text("no code")
    assert first.startswith(hardware.commit())
    other = file.parent / "new" / "other.py"
    other.parent.mkdir()
    other.write_text("")
    assert hardware.commit() == f"{first[:7]}, modified"
    other.unlink()
    file.write_text("changed")
    assert hardware.commit() == f"{first[:7]}, modified"


def test_without_git_no_commit_is_known(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert hardware.commit() is None


def test_processes_of_pytorch_do_not_load_jax():
    pytest.importorskip("torch", reason="the other variant")
    found = "assert not {'jax', 'jist'} & sys.modules.keys()"
    both = "import sys, experiments.bench.torch_workers, experiments.bench.torch_files"
    subprocess.run([sys.executable, "-c", f"{both}; {found}"], check=True)
