"""Says which process of a run was lost, where the others would wait for it or end in a stack trace.

The connections of the roll call stay open. Every process sends a sign of life over its own from
time to time: process 0 to all, the others to process 0, which tells them who is missing. So
whoever is left says for whom it waited, in one line and within a known time. Ctrl-C is noticed
here as well: Python itself would notice it only after the exchange in which a process waits.
"""

import atexit
import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import NoReturn

ALIVE, FINISHED, LOST = b".\n", b"finished\n", b"lost "
INTERVAL = 5.0  # seconds between two signs of life
GRACE = 2.0  # seconds in which process 0 may end with an error of its own


class Partners:
    """A thread that watches over the other processes of a run, and ends this one without them.

    Args:
        connections: {index of a process: its connection}, as `call_roll` returns them; none where
            nobody is watched over.
        processes: number of processes, for messages.
        timeout: seconds without a sign of life after which a process counts as lost.
    """

    def __init__(self, connections: Mapping[int, socket.socket], processes: int, timeout: float):
        self._connections = dict(connections)
        self._processes = processes
        self._timeout = timeout
        self._heard = dict.fromkeys(connections, time.monotonic())
        self._rest = dict.fromkeys(connections, b"")  # of a line that is still to come
        self._lost = ""
        self._known = threading.Event()
        self._word = threading.Lock()  # whoever takes it says who was lost
        for connection in self._connections.values():
            connection.setblocking(False)
        self._signals, told = socket.socketpair()
        told.setblocking(False)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._told = told  # closed, it would not be told
        atexit.register(self._tell, FINISHED)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def lost(self, patience: float = 3 * GRACE) -> str:
        """Who was lost, in a sentence to be said; empty if nobody was within `patience` seconds."""
        if not self._connections or not self._known.wait(patience):
            return ""
        if not self._word.acquire(blocking=False):
            time.sleep(patience)  # it is being said, and this process ended
        return self._lost

    def _watch(self) -> None:
        interval = min(INTERVAL, self._timeout / 4)
        due = 0.0
        while not self._lost:
            if time.monotonic() >= due:
                self._tell(ALIVE)
                due = time.monotonic() + interval
            self._listen(max(0.0, due - time.monotonic()))
            for index, heard in self._heard.items():
                if time.monotonic() - heard > self._timeout:
                    self._lose(
                        f"nothing was heard of process {index} of {self._processes} for "
                        f"{self._timeout:g} s (--partner-timeout)"
                    )
        self._tell(LOST + self._lost.encode() + b"\n")
        self._known.set()
        # Without process 0 JAX ends the others a moment later, with a stack trace.
        time.sleep(0 if 0 in self._connections else GRACE)
        if not self._word.acquire(blocking=False):
            time.sleep(GRACE)
        _end(f"error: {self._lost}", 1)

    def _listen(self, seconds: float) -> None:
        by_connection = {self._connections[index]: index for index in self._heard}
        ready, _, _ = select.select([self._signals, *by_connection], [], [], seconds)
        for connection in ready:
            if connection is self._signals:
                self._interrupted(connection.recv(64))
                continue
            index, came = by_connection[connection], b""
            with contextlib.suppress(OSError):  # of a connection that broke
                came = connection.recv(1024)
            self._heard[index] = time.monotonic()
            *lines, self._rest[index] = (self._rest[index] + came).split(b"\n")
            for line in lines:
                if line.startswith(LOST):
                    self._lose(line.removeprefix(LOST).decode(errors="replace"))
            if FINISHED.strip() in lines:
                del self._heard[index]
            elif not came:
                self._lose(f"process {index} of {self._processes} has ended before the others")

    def _interrupted(self, numbers: bytes) -> None:
        """Ends this process after Ctrl-C, if the main thread cannot."""
        if signal.SIGINT in numbers:
            time.sleep(GRACE)
            _end("interrupted", 130)

    def _lose(self, sentence: str) -> None:
        self._lost = self._lost or sentence

    def _tell(self, message: bytes) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.send(message)


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    os._exit(code)
