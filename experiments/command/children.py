"""Processes of one script on this machine: started together, ended together, told apart by prefix.

Imports no JAX, so that a launcher begins at once.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO, Any

GRACE = 10.0  # seconds between asking a process to end and ending it
WITHOUT_PARTNER = (1, -signal.SIGABRT)  # how a process ends that has lost another; by JAX itself
PROCESS_BYTES = 128 * 2**20  # of its own, that one takes when it has imported JAX
OWN_FILES, FILES = 32, 2  # that the launcher has open itself, and for each process


def most_processes() -> tuple[int, str]:
    """How many processes can be started on this machine, and what sets the limit."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [
        (memory // PROCESS_BYTES, f"each takes 128 MB or more of {memory / 2**30:.1f} GB here")
    ]
    if files != resource.RLIM_INFINITY:
        limits.append(((files - OWN_FILES) // FILES, f"{files} files may be open (ulimit -n)"))
    most, why = min(limits)
    return max(1, most), why


class Children:
    """The processes that a launcher has started.

    Attributes:
        told: signals that were passed on to them.
    """

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[str]] = {}
        self.told: list[int] = []

    def run(
        self,
        command: Sequence[str],
        indices: Sequence[int],
        processes: int,
        coordinator: str,
        environment: dict[str, str],
    ) -> tuple[int, int]:
        """Starts a script in several processes, until all have ended or one has failed.

        Args:
            command: the script's module name and its arguments.
            indices: of the processes to start here.
            processes: number of all processes, here and elsewhere.
            coordinator: HOST:PORT of process 0.
            environment: what is set for them where the launcher's own environment says nothing.

        Returns:
            The exit code, 0 or that of the first that failed (128 + N if signal N ended it), and
            how many have failed of themselves by then.
        """
        printers: list[threading.Thread] = []
        own = ["--coordinator", coordinator, "--num-processes", str(processes)]
        try:
            for here, index in enumerate(indices):
                child = _start([*command, *own, "--process-id", str(index)], here, environment)
                self._children[index] = child
                for stream, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
                    arguments = (index, stream, target)
                    printers.append(threading.Thread(target=_print_prefixed, args=arguments))
                    printers[-1].start()
            return self._wait()
        finally:
            self._end()
            for printer in printers:
                printer.join()
            self._children.clear()

    def pass_on(self, number: int, _: FrameType | None) -> None:
        """Passes a signal on to all children; a signal handler."""
        if not self._children:  # the launcher waits for other hosts
            print(f"ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
            sys.exit(128 + number)
        self.told.append(number)
        for child in self._children.values():
            child.send_signal(number)

    def _wait(self) -> tuple[int, int]:
        while True:
            codes = {index: child.poll() for index, child in self._children.items()}
            failed = {index: code for index, code in codes.items() if code}
            if failed:
                first = failed_first(failed)
                index, code = next(iter(first.items()))
                if code < 0 and not self.told:
                    why = signal.Signals(-code).name
                    print(f"process {index} was ended by {why}", file=sys.stderr, flush=True)
                return code if code > 0 else 128 - code, len(first)
            if None not in codes.values():
                return 0, 0
            time.sleep(0.05)

    def _end(self) -> None:
        children = self._children.values()
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


def failed_first(codes: Mapping[int, int]) -> dict[int, int]:
    """Which of some processes failed of themselves, of all that have failed within a moment.

    When one is killed, or refuses its options, the others end at once, too.

    Args:
        codes: how each process that failed has ended: its exit code, or -N for signal N.

    Returns:
        Those that have ended otherwise than for lack of a partner; else one of them.

    >>> failed_first({0: 1, 1: -6, 2: -9, 3: 1})
    {2: -9}
    >>> failed_first({0: 1, 3: 1})
    {0: 1}
    """
    own = {index: code for index, code in codes.items() if code not in WITHOUT_PARTNER}
    return own or dict([next(iter(codes.items()))])


def _start(command: Sequence[str], here: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    usual = {"JAX_LOCAL_DEVICE_IDS": str(here), "PYTHONUNBUFFERED": "1"}  # ids of GPUs
    own = {"JIST_LAUNCHER": str(os.getpid())}  # with which the script ends
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=usual | environment | os.environ | own,
        start_new_session=True,  # so that a terminal's Ctrl-C reaches it once, through the launcher
    )


def _print_prefixed(index: int, stream: Any, target: IO[str]) -> None:
    with stream:
        for line in stream:
            # In one write, because the streams of all processes share the target.
            target.write(f"[{index}] {line.rstrip()}\n")
            target.flush()
