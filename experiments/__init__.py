"""One script per experiment; only here are command-line options, paths and plots."""

import os
import sys
from types import TracebackType


def _quietly(
    kind: type[BaseException], error: BaseException, where: TracebackType | None, /
) -> None:
    """Ends in one line if Ctrl-C comes while a script is still importing, which takes seconds."""
    if not issubclass(kind, KeyboardInterrupt) or "--debug" in sys.argv:
        return sys.__excepthook__(kind, error, where)
    print("interrupted", file=sys.stderr)
    sys.stderr.flush()
    os._exit(130)


def _once(error: "sys.UnraisableHookArgs") -> None:
    """Leaves out what follows a checkpoint that cannot be written, where the disk is full, say.

    Its first failure ends Orbax's event loop and is told; writes of it that end later find the loop
    closed, each with a traceback.
    """
    if str(error.exc_value) != "Event loop is closed" or "--debug" in sys.argv:
        sys.__unraisablehook__(error)


sys.excepthook = _quietly
sys.unraisablehook = _once
