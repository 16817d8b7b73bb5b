"""Keeps what libraries in C++ print out of the way of what a script says."""

import faulthandler
import io
import os
import sys


def silence_libraries() -> None:
    """Sends everything to nowhere that is not written through `sys.stdout` and `sys.stderr`.

    Gloo prints lines about its connections, and JAX ends a process whose partners are lost with a
    stack trace, after ours has said who. Should a library end the process for another reason,
    Python's `faulthandler` still says where it stood. Streams that have been replaced are left.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            ours = os.fdopen(
                os.dup(stream.fileno()),
                "w",
                buffering=1,
                encoding=stream.encoding,
                errors=stream.errors,
            )
            os.dup2(nowhere, stream.fileno())
            setattr(sys, name, ours)
            setattr(sys, f"__{name}__", ours)
    os.close(nowhere)
    if sys.stderr is not None:
        faulthandler.enable(sys.stderr, all_threads=False)
