"""Starts the processes of a run on this machine.

    python -m experiments.launch -n 4 -- experiments.distributed --workers 4 ...

Starts a script N times, each with `--coordinator`, `--num-processes` and `--process-id`, and
prefixes every line of output by its process. Signals are passed on. When a process fails, the
others are ended, and the launcher exits with its exit code (128 + N for one ended by signal N). On
a machine with GPUs process I takes GPU I. Expected: as long as the script takes.
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
GRACE = 10.0  # seconds between asking a process to end and ending it


def launch(processes: int, command: Sequence[str]) -> int:
    """Runs a script in several processes, until all have ended or one has failed.

    Args:
        processes: number of processes.
        command: the script's module name and its arguments.

    Returns:
        The exit code: 0, or that of the first process that failed.
    """
    coordinator = f"{LOOPBACK}:{_free_port()}"
    children: list[subprocess.Popen[str]] = []
    printers: list[threading.Thread] = []
    before = {name: signal.signal(name, _pass_on(children)) for name in PASSED_ON}
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
        for name, handler in before.items():
            signal.signal(name, handler)
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
    return subprocess.Popen(
        [sys.executable, "-m", *command, *own, "--process-id", str(index)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment | os.environ,
        start_new_session=True,  # so that a terminal's Ctrl-C reaches it once, through the launcher
    )


def _print_prefixed(index: int, stream: Any, target: IO[str]) -> None:
    for line in stream:
        # In one write, because the streams of all processes share the target.
        target.write(f"[{index}] {line.rstrip()}\n")
        target.flush()


def _pass_on(
    children: Sequence[subprocess.Popen[str]],
) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, _: FrameType | None) -> None:
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
        usage="%(prog)s -n N -- SCRIPT [OPTION ...]",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", type=int, required=True, metavar="N", help="number of processes")
    parser.add_argument("command", nargs="+", metavar="SCRIPT", help="module and its options")
    parsed = parser.parse_args(arguments)
    if parsed.n < 1:
        parser.error(f"-n must be at least 1, got {parsed.n}")
    return launch(parsed.n, parsed.command)


if __name__ == "__main__":
    sys.exit(main())
