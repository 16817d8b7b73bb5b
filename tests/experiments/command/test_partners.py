"""Processes that watch over each other: who is lost is told, in one line and in time."""

import signal
import socket
import threading
import time

import pytest

from experiments.command import partners
from experiments.command.partners import Partners


@pytest.fixture
def watch(monkeypatch):
    """Makes a process that watches over others, and gives the other ends of its connections."""
    ended, opened, watching = [], [], []
    monkeypatch.setattr(partners, "_end", lambda message, code: ended.append((message, code)))
    monkeypatch.setattr(partners, "GRACE", 0.05)
    monkeypatch.setattr("atexit.register", lambda *_: None)

    def begin(*others, processes=3, timeout=20.0):
        pairs = {index: socket.socketpair() for index in others}
        opened.extend(end for pair in pairs.values() for end in pair)
        made = Partners({index: own for index, (own, _) in pairs.items()}, processes, timeout)
        opened.extend((made._signals, made._told))
        watching.append(made)
        return made, [theirs for _, theirs in pairs.values()], ended

    yield begin
    signal.set_wakeup_fd(-1)
    for made in watching:
        made._lost = made._lost or "the test is over"
        made._told.send(b"\0")
        made._thread.join()
    for end in opened:
        end.close()


def soon(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_process_that_ends_is_told_to_all(watch):
    made, (first, second), ended = watch(1, 2)
    first.close()
    assert made.lost(0.5) == "process 1 of 3 has ended before the others"
    soon(lambda: ended)
    assert ended == [("error: process 1 of 3 has ended before the others", 1)]
    assert second.recv(1000) == b".\nlost process 1 of 3 has ended before the others\n"


def test_what_the_first_process_tells_is_said_by_the_others(watch):
    made, (zero,), _ = watch(0)
    for part in (b".\nlo", b"st process 2 ", b"of 3 has ended\n"):
        zero.send(part)
        time.sleep(0.02)
    assert made.lost(0.5) == "process 2 of 3 has ended"


def test_silence_is_told_when_the_time_is_over_and_not_before(watch):
    begin = time.monotonic()
    made, (one, two), _ = watch(1, 2, timeout=0.6)
    while not (said := made.lost(0.05)):
        one.send(partners.ALIVE)
    assert said == "nothing was heard of process 2 of 3 for 0.6 s (--partner-timeout)"
    assert 0.6 < time.monotonic() - begin < 5
    assert two.recv(1000).startswith(partners.ALIVE)


def test_who_has_finished_is_not_missed(watch):
    made, (one,), ended = watch(1, processes=2, timeout=0.2)
    one.send(partners.FINISHED)
    one.close()
    assert made.lost(0.5) == ""
    assert ended == []


def test_ctrl_c_ends_a_process_that_waits_for_others(watch):
    """The main thread hears of it as well, and ends in order if it can."""
    heard = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: heard.set())
    try:
        _, _, ended = watch()
        signal.raise_signal(signal.SIGINT)
        assert heard.is_set()
        soon(lambda: ended)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended[0] == ("interrupted", 130)
