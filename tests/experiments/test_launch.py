"""Processes on this machine: the launcher, and training that does not depend on their number."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import chex
import numpy as np
import pytest
import tyro
from flax import nnx
from PIL import Image

from experiments import distributed, launch, pretrain
from experiments.command import children, processes
from experiments.command.options import HeadOptions, ProcessOptions, StrategyOptions
from experiments.command.rollcall import JoinError, call_roll
from experiments.runs import heads, pretraining, restored
from experiments.runs.directory import read_json
from experiments.runs.inputs import open_inputs
from experiments.runs.plan import Plan
from jist.models import DecoderConfig, ViTConfig, load_mae

ROOT = pathlib.Path(__file__).parents[2]
# One device per process, which compiles as these tests do.
FLAGS = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])


def launcher(number, *command, path=ROOT):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]),
        "XLA_FLAGS": FLAGS,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # most of the time is spent compiling
    }
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.launch", "-n", str(number), "--", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    out, err = child.communicate(timeout=180)
    return child.returncode, out, err


def script(directory, body):
    """A module that the launcher can start; it knows its own process index."""
    (directory / "child.py").write_text(
        "import os, signal, sys, time\nindex = int(sys.argv[-1])\n" + body
    )
    return directory


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_line_carries_the_number_of_its_process(tmp_path):
    body = "print('out', sys.argv[1:]); print('err', index, file=sys.stderr)"
    code, out, err = finish(launcher(2, "child", "--some", "option", path=script(tmp_path, body)))
    assert code == 0
    lines = sorted(out.splitlines())
    assert [line[:3] for line in lines] == ["[0]", "[1]"]
    for i, line in enumerate(lines):
        assert "'--some', 'option', '--coordinator', '127.0.0.1:" in line
        assert f"'--num-processes', '2', '--process-id', '{i}']" in line
    assert sorted(err.splitlines()) == ["[0] err 0", "[1] err 1"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)],
)
def test_one_failure_ends_all_with_its_exit_code(tmp_path, failure, expected):
    body = f"""
print(os.getpid(), flush=True)
if index == 1:
    {failure}
time.sleep(60)
"""
    start = time.monotonic()
    code, out, _ = finish(launcher(3, "child", path=script(tmp_path, body)))
    assert code == expected
    assert time.monotonic() - start < 30
    assert not any(is_running(int(line.split()[1])) for line in out.splitlines())


def test_signals_are_passed_on(tmp_path):
    body = """
signal.signal(signal.SIGTERM, lambda *_: (print("signalled", flush=True), sys.exit(9)))
print("ready", flush=True)
time.sleep(60)
"""
    child = launcher(2, "child", path=script(tmp_path, body))
    ready = sorted(child.stdout.readline() for _ in range(2))
    assert ready == ["[0] ready\n", "[1] ready\n"]
    child.send_signal(signal.SIGTERM)
    code, out, _ = finish(child)
    assert code == 9
    assert sorted(out.splitlines()) == ["[0] signalled", "[1] signalled"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A small run on images on disk; its features are shared by all runs."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name in ("blue", "green", "red"):
        (root / name).mkdir()
        for i in range(20):
            pixels = generator.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return [
        *("--dataset", f"folder:{root}", "--features-dir", f"{root.parent}/features"),
        *("--hidden", "12", "8", "--batch-size", "4", "--epochs", "1", "--local-steps", "1"),
        *("--workers", "4", "--partition", "stratified"),
    ]


def trained(run_dir):
    """The parameters and statistics of a run's checkpoint, and the line of its one epoch."""
    plan = Plan.from_config(read_json(run_dir / "config.json"))
    (training,) = plan.trainings
    model, *_ = restored.restore_head(run_dir, plan, training, open_inputs(plan.images), "last")
    (line,) = (run_dir / "metrics.jsonl").read_text().splitlines()  # one process writes
    return nnx.to_pure_dict(nnx.state(model)), json.loads(line)


@pytest.fixture(scope="module")
def in_one_process(arguments, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("one") / "run"
    given = [*arguments, "--run-dir", str(run_dir), "--devices", "1"]
    distributed.main(tyro.cli(distributed.DistributedOptions, args=given))
    return trained(run_dir)


# A script as the launcher starts it.
SCRIPT = """
import runpy

joined = sys.argv[1:]
sys.argv[1:] = {given!r} + joined
runpy.run_module("experiments.distributed", run_name="__main__", alter_sys=True)
"""
# Another one by the same processes, which take longer to start than to train.
THEN_PRETRAIN = """
import tyro
from experiments import pretrain
from experiments.command import processes
from experiments.runs import pretraining
from jist.models import DecoderConfig, ViTConfig

processes.join = lambda options: None
pretraining.SIZES["nano"] = (ViTConfig(8, 4, 8, 1, 1, 8), DecoderConfig(8, 1, 1, 8))
pretrain.main(tyro.cli(pretraining.PretrainOptions, args={given!r} + joined))
"""


@pytest.fixture(scope="module")
def pretraining_arguments(arguments):
    given = [*arguments[:2], "--batch-size", "8", "--epochs", "1", "--base-lr", "1e-3"]
    return [*given, "--dtype", "float32"]


@pytest.fixture(scope="module")
def in_two_processes(arguments, pretraining_arguments, in_one_process, tmp_path_factory):
    """Trained, then pre-trained; the features are those of the one process."""
    root = tmp_path_factory.mktemp("two")
    head = [*arguments, "--run-dir", str(root / "run"), "--exchange", "replicated"]
    mae = [*pretraining_arguments, "--run-dir", str(root / "mae"), "--picture-every", "1"]
    body = SCRIPT.format(given=head) + THEN_PRETRAIN.format(given=mae)
    return root, *finish(launcher(2, "child", path=script(root, body)))


@pytest.fixture(scope="module")
def in_four_processes(arguments, in_one_process, tmp_path_factory):
    root = tmp_path_factory.mktemp("four")
    given = [*arguments, "--run-dir", str(root / "run"), "--exchange", "sharded"]
    body = SCRIPT.format(given=given)
    return root, *finish(launcher(4, "child", path=script(root, body)))


@pytest.mark.parametrize("several", ["in_two_processes", "in_four_processes"])
def test_training_does_not_depend_on_the_number_of_processes(in_one_process, several, request):
    root, code, out, err = request.getfixturevalue(several)
    assert code == 0, err
    assert "Test examples" in out
    assert all(line.startswith("[0]") for line in out.splitlines())  # libraries say nothing
    (expected, expected_metrics), (found, metrics) = in_one_process, trained(root / "run")
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)
    for name in ("round", "train_loss_per_worker", "test_loss", "test_accuracy"):
        assert metrics[name] == pytest.approx(expected_metrics[name], rel=1e-5)


def test_pretraining_does_not_depend_on_the_number_of_processes(
    pretraining_arguments, in_two_processes, tmp_path, monkeypatch
):
    small = ViTConfig(8, 4, 8, 1, 1, 8), DecoderConfig(8, 1, 1, 8)
    monkeypatch.setitem(pretraining.SIZES, "nano", small)
    given = [*pretraining_arguments, "--run-dir", str(tmp_path), "--picture-every", "0"]
    pretrain.main(tyro.cli(pretraining.PretrainOptions, args=given))
    root, code, _, err = in_two_processes
    assert code == 0, err
    assert (root / "mae" / "reconstructions" / "epoch-0001.png").exists()
    expected, found = (
        nnx.to_pure_dict(nnx.state(load_mae(run_dir / "encoder"), nnx.Param))
        for run_dir in (tmp_path, root / "mae")
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


JOIN = """
from experiments.command import processes
from experiments.command.joining import ProcessOptions

coordinator, _, number = sys.argv[2:5]
processes.join(
    ProcessOptions(coordinator=coordinator, num_processes=int(number), process_id=index)
)
"""


def test_a_process_that_fails_does_not_wait_for_the_others_and_ends_them(tmp_path):
    body = (
        JOIN
        + """
if index == 1:
    raise RuntimeError("lost")
time.sleep(100)
"""
    )
    start = time.monotonic()
    code, _, err = finish(launcher(2, "child", path=script(tmp_path, body)))
    assert code == 1
    assert "[1] RuntimeError: lost" in err
    assert time.monotonic() - start < 60


def test_processes_that_train_together_end_when_told(tmp_path):
    child = launcher(
        2, "child", path=script(tmp_path, JOIN + "print('x', flush=True)\ntime.sleep(100)")
    )
    for _ in range(2):
        child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert finish(child)[0] == 128 + signal.SIGTERM
    assert time.monotonic() - start < 8  # without being killed after the launcher's patience


def test_a_process_without_a_worker_is_told(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    how, head = StrategyOptions(workers=1), HeadOptions(hidden=(4,))
    with pytest.raises(ValueError, match="every process must have a worker, got 1 workers on 1"):
        heads.build_strategy(3, 2, head, how, 0)


def test_the_three_options_of_a_process_go_together():
    with pytest.raises(ValueError, match="must be given together or not at all"):
        processes.join(ProcessOptions(num_processes=2))


def test_all_come_to_the_roll_call_in_any_order():
    address = f"127.0.0.1:{launch._free_port()}"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        late = [pool.submit(call_roll, address, 3, index, 20, address) for index in (2, 1, 0)]
        second, first, zero = (one.result() for one in late)
    zero[2].send(b"to the second")
    assert second[0].recv(100) == b"to the second"
    for connection in (*zero.values(), *first.values(), *second.values()):
        connection.close()


def test_who_does_not_come_and_a_port_that_is_taken_are_told():
    address = f"127.0.0.1:{launch._free_port()}"
    with pytest.raises(JoinError, match=r"processes 1, 2 of 3 did not come to 127.* 0.5 s"):
        call_roll(address, 3, 0, 0.5, None)
    with pytest.raises(JoinError, match=r"process 1 was not joined by .*: Connection refused"):
        call_roll(address, 3, 1, 0.5, None)
    with (
        socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))),
        pytest.raises(JoinError, match=r"port \d+ of 127\S+ is taken by another program"),
    ):
        call_roll(address, 3, 0, 0.5, address)


@pytest.mark.parametrize(("index", "code"), [("1", 2), ("0", 7)])
def test_all_are_started_again_after_a_failure_but_not_after_a_wrong_option(
    tmp_path, capfd, index, code, monkeypatch
):
    """The file counts the starts of the process that fails."""
    count = tmp_path / "count"
    body = f"""
import pathlib
if index == {index}:
    with open({str(count)!r}, "a") as file:
        file.write("x")
    sys.exit({code} if os.path.getsize({str(count)!r}) < 3 else 0)
"""
    monkeypatch.setenv("PYTHONPATH", str(script(tmp_path, body)))
    found = launch.launch(2, ["child"], max_restarts=3)
    err = capfd.readouterr().err
    if code == 2:
        assert (found, count.read_text(), err) == (2, "x", "")
    else:
        assert (found, count.read_text()) == (0, "xxx")
        assert err.splitlines() == [
            f"a process ended with exit code 7: starting all again, {n} of 3" for n in (1, 2)
        ]


def test_all_end_with_a_launcher_that_is_killed(tmp_path):
    body = (
        "from experiments.command import processes\nprocesses._end_with_launcher()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)"
    )
    child = launcher(2, "child", path=script(tmp_path, body))
    running = [int(child.stdout.readline().split()[1]) for _ in range(2)]
    child.kill()
    child.wait()
    deadline = time.monotonic() + 5
    while any(map(is_running, running)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, running))
    child.communicate()


def test_after_a_death_fewer_go_on_as_many_as_can_share_the_work(tmp_path, capfd, monkeypatch):
    body = """
processes = int(sys.argv[-3])
print("of", processes, flush=True)
if processes == 4 and index == 3:
    os.kill(os.getpid(), signal.SIGKILL)
if processes == 4:
    time.sleep(60)
sys.exit(2 if processes == 3 else 0)
"""
    monkeypatch.setenv("PYTHONPATH", str(script(tmp_path, body)))
    assert launch.launch(4, ["child"], max_restarts=1, elastic=True) == 0
    out, err = capfd.readouterr()
    assert sorted(line for line in out.splitlines() if line.endswith("of 2")) == [
        "[0] of 2",
        "[1] of 2",
    ]
    assert err.splitlines() == [
        "process 3 was ended by SIGKILL",
        "a process ended with exit code 137: starting all again, 1 of 1, in 3 processes",
        "a process ended with exit code 2: starting all again, 1 of 1, in 2 processes",
    ]


def test_who_ends_with_the_one_that_died_is_not_left_out(tmp_path, capfd, monkeypatch):
    """Others end for lack of it before the launcher looks again: one alone is missing."""
    body = """
processes = int(sys.argv[-3])
if processes == 3 and index == 2:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(1 if processes == 3 else 0)
"""
    looked, sleep = [], time.sleep

    def poll(child):
        sleep(0 if looked else 3)  # until all have ended
        looked.append(child)
        return ended(child)

    ended = subprocess.Popen.poll
    monkeypatch.setattr(subprocess.Popen, "poll", poll)
    monkeypatch.setenv("PYTHONPATH", str(script(tmp_path, body)))
    assert launch.launch(3, ["child"], max_restarts=1, elastic=True) == 0
    assert capfd.readouterr().err.splitlines() == [
        "process 2 was ended by SIGKILL",
        "a process ended with exit code 137: starting all again, 1 of 1, in 2 processes",
    ]


def on_host(index, port, path, *, timeout=30):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.launch", "--hosts", "127.0.0.1,127.0.0.2"),
            *("--host-index", str(index), "--port", str(port), "--join-timeout", str(timeout)),
            *("-n", "2", "--max-restarts", "1", "--", "child"),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_launchers_of_several_hosts_start_one_run_and_again_after_a_failure(tmp_path):
    """A process of either host fails once; the other host's notices, as `Partners` would."""
    body = f"""
import pathlib
mark = pathlib.Path({str(tmp_path)!r}, f"began-{{index // 2}}")
again = mark.exists()
time.sleep(0.2)
mark.touch()
print(*sys.argv[1:], flush=True)
sys.exit(0 if again else 7)
"""
    path, port = script(tmp_path, body), launch._free_port()
    both = [on_host(index, port, path) for index in (1, 0)]
    for host, child in zip((1, 0), both, strict=True):
        code, out, err = finish(child)
        assert code == 0, err
        own = {f"[{i}] --coordinator 127.0.0.1:{port} --num-processes 4 --process-id {i}"
               for i in (2 * host, 2 * host + 1)}  # fmt: skip
        assert set(out.splitlines()) == own
        assert "starting all again, 1 of 1" in err


def test_a_host_that_does_not_come_is_named(tmp_path):
    path, port = script(tmp_path, ""), launch._free_port()
    for index, message in (
        (0, f"host 127.0.0.2 of 2 did not come to 127.0.0.1:{port} within 1 s (--join-timeout)"),
        (1, f"host 127.0.0.2 was not joined by host 127.0.0.1 at 127.0.0.1:{port} within 1 s "),
    ):
        code, out, err = finish(on_host(index, port, path, timeout=1))
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {message}")


def test_a_launcher_finds_out_which_host_it_is_on(capsys):
    assert launch._own_index(["host.invalid", "127.0.0.1"]) == 1
    assert launch._own_index(["127.0.0.1", "127.0.0.2"]) is None  # both are this machine
    for given, message in (
        (["--hosts", "127.0.0.1,127.0.0.2"], "--host-index must say which of"),
        (["--hosts", "a,b", "--host-index", "2"], "--host-index must be 0 to 1, got 2"),
        (["--hosts", "a..b,c"], "--host-index must say which of a..b,c this machine is"),
        (["--hosts", "a,a"], "--hosts must be different names between commas, got a,a"),
        (["--port", "4000"], "--port needs --hosts"),
        (["--elastic"], "--elastic needs --max-restarts, and goes with one host"),
    ):
        with pytest.raises(SystemExit):
            launch.main([*given, "-n", "2", "--", "json.tool"])
        assert message in capsys.readouterr().err
    hosts = ["--hosts", "a..b, c", "--host-index", "1"]
    assert launch.main([*hosts, "-n", "2", "--", "json.tool"]) == 1
    assert capsys.readouterr().err == "error: 'a..b' cannot be the name of a host\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("experiments.distribted", "distributed, got 'experiments.distribted'\n"),
        ("experiments/distributed.py", "distributed.py' (meant experiments.distributed?)\n"),
        ("python", "SCRIPT must be a module that `python -m` takes"),
        ("", "such as experiments.distributed, got ''\n"),
        ("experiments.launch", "SCRIPT must not be the launcher itself"),
    ],
)
def test_a_mistyped_script_is_told_once_and_not_tried_again(script, message, capsys, monkeypatch):
    monkeypatch.setattr(launch, "launch", lambda *given, **how: pytest.fail("it is started"))
    with pytest.raises(SystemExit) as stopped:
        launch.main(["-n", "2", "--max-restarts", "3", "--", script, "--workers", "2"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count(message) == 1


def test_no_more_processes_are_started_than_the_machine_holds(capsys, monkeypatch):
    monkeypatch.setattr(launch, "launch", lambda *given, **how: pytest.fail("it is started"))
    most, _ = children.most_processes()
    assert 1 <= most < 100_000
    with pytest.raises(SystemExit) as stopped:
        launch.main(["-n", "100000", "--", "json.tool"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert f"-n must be at most {most} on this machine, got 100000: " in said
    monkeypatch.setattr(children.resource, "getrlimit", lambda _: (40, 40))
    assert children.most_processes() == (4, "40 files may be open (ulimit -n)")


def test_a_process_that_is_killed_is_named_by_the_other_in_one_line(tmp_path):
    """Without a launcher, in the middle of an exchange; JAX itself does not say who it was."""
    body = """
from experiments.command import processes
from experiments.command.cli import Options, run
from experiments.command.joining import ProcessOptions

def main(options):
    processes.join(ProcessOptions(coordinator=address, num_processes=2, process_id=index))
    from jax.experimental import multihost_utils
    multihost_utils.sync_global_devices("both are here")
    print(os.getpid(), flush=True)
    if index == 1:
        time.sleep(100)
    multihost_utils.sync_global_devices("for ever")

address = sys.argv.pop(1)
sys.argv[1:] = []
run(main, Options, "")
"""
    path, address = script(tmp_path, body), f"127.0.0.1:{launch._free_port()}"
    zero, one = (
        subprocess.Popen(
            [sys.executable, "-m", "child", address, str(index)],
            env=os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "XLA_FLAGS": FLAGS},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    )
    while not (line := one.stdout.readline()).strip().isdigit():
        assert line
    one.kill()
    begin = time.monotonic()
    code, _, err = finish(zero)
    assert time.monotonic() - begin < 20
    assert (code, err) == (1, "error: process 1 of 2 has ended before the others\n")
    finish(one)
