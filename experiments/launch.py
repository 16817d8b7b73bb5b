"""Starts the processes of a run on this machine.

    python -m experiments.launch -n 4 -- experiments.distributed --workers 4 ...

Starts a script N times, each with `--coordinator`, `--num-processes` and `--process-id`, and
prefixes every line of output by its process. Signals are passed on. When a process fails, the
others are ended, and the launcher exits with its exit code (128 + N for one ended by signal N);
with `--max-restarts K` all are started again up to K times, and go on from the last checkpoint. All
end with the launcher, however it ends. On a machine with GPUs process I takes GPU I. Expected: as
long as the script takes.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import IO, Any

LOOPBACK = "127.0.0.1"
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WRONG_OPTION = 2  # the exit code; it would be wrong again
GRACE = 10.0  # seconds between asking a process to end and ending it


def launch(processes: int, command: Sequence[str], max_restarts: int = 0) -> int:
    """Runs a script in several processes, until all have ended or one has failed.

    Args:
        processes: number of processes.
        command: the script's module name and its arguments.
        max_restarts: how often a failure is answered by starting all again. A wrong option (exit
            code 2) is not, nor a signal that the launcher was sent.

    Returns:
        The exit code: 0, or that of the first process that failed.
    """
    children: list[subprocess.Popen[str]] = []
    told: list[int] = []  # signals that were passed on
    code = 0
    before = {name: signal.signal(name, _pass_on(children, told)) for name in PASSED_ON}
    try:
        for restart in range(max_restarts + 1):
            code = _run(processes, command, children)
            if code in (0, WRONG_OPTION) or told or restart == max_restarts:
                break
            print(
                f"a process ended with exit code {code}: starting all again, "
                f"{restart + 1} of {max_restarts}",
                file=sys.stderr,
                flush=True,
            )
        return code
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _run(processes: int, command: Sequence[str], children: list[subprocess.Popen[str]]) -> int:
    """Starts all, adding them to `children`, and waits for them; returns the exit code."""
    coordinator = f"{LOOPBACK}:{_free_port()}"
    children.clear()
    printers: list[threading.Thread] = []
    try:
        for index in range(processes):
            child = _start(command, coordinator, processes, index)
            children.append(child)
            for stream, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
                printers.append(
                    threading.Thread(target=_print_prefixed, args=(index, stream, target))
                )
                printers[-1].start()
        return _wait(children)
    finally:
        _end(children)
        for printer in printers:
            printer.join()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def _start(
    command: Sequence[str], coordinator: str, processes: int, index: int
) -> subprocess.Popen[str]:
    own = ["--coordinator", coordinator, "--num-processes", str(processes)]
    environment = {
        "JAX_LOCAL_DEVICE_IDS": str(index),  # of GPUs
        "JAX_COORDINATOR_BIND_ADDRESS": coordinator,  # not on the network
        "PYTHONUNBUFFERED": "1",
    }
    own_environment = {"JIST_LAUNCHER": str(os.getpid())}  # with which the script ends
    return subprocess.Popen(
        [sys.executable, "-m", *command, *own, "--process-id", str(index)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment | os.environ | own_environment,
        start_new_session=True,  # so that a terminal's Ctrl-C reaches it once, through the launcher
    )


def _print_prefixed(index: int, stream: Any, target: IO[str]) -> None:
    with stream:
        for line in stream:
            # In one write, because the streams of all processes share the target.
            target.write(f"[{index}] {line.rstrip()}\n")
            target.flush()


def _pass_on(
    children: Sequence[subprocess.Popen[str]], told: list[int]
) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, _: FrameType | None) -> None:
        told.append(number)
        for child in children:
            child.send_signal(number)

    return handler


def _wait(children: Sequence[subprocess.Popen[str]]) -> int:
    """Waits for all, or for the first that fails; returns the exit code."""
    while True:
        codes = [child.poll() for child in children]
        failed = next((code for code in codes if code), None)
        if failed is not None:
            return failed if failed > 0 else 128 - failed
        if None not in codes:
            return 0
        time.sleep(0.05)


def _end(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and launches; returns the exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch",
        usage="%(prog)s -n N [--max-restarts K] -- SCRIPT [OPTION ...]",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", type=int, required=True, metavar="N", help="number of processes")
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="K",
        help="how often all are started again when one fails",
    )
    parser.add_argument("command", nargs="+", metavar="SCRIPT", help="module and its options")
    parsed = parser.parse_args(arguments)
    if parsed.n < 1:
        parser.error(f"-n must be at least 1, got {parsed.n}")
    if parsed.max_restarts < 0:
        parser.error(f"--max-restarts must not be negative, got {parsed.max_restarts}")
    return launch(parsed.n, parsed.command, parsed.max_restarts)


if __name__ == "__main__":
    sys.exit(main())
