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


sys.excepthook = _quietly
