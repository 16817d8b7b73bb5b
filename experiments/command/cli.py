"""From a dataclass of options to a command line with clear errors."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import tyro

from experiments.command import processes
from experiments.command.allowed import check_options
from experiments.command.cpu import keep_freed_memory, make_cores_devices
from experiments.command.errors import UsageError, message_of, of_options, shortened, way_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every script."""

    debug: bool = False
    """Show the traceback of an error."""


AnyOptions = TypeVar("AnyOptions", bound=Options)


def run(main: Callable[[AnyOptions], None], options: type[AnyOptions], description: str) -> None:
    """Parses the command line and runs `main`.

    A wrong argument ends with exit code 2, a failure with 1, Ctrl-C with 130, each with one message
    on standard error; a traceback is shown only with `--debug`.

    Args:
        main: the script.
        options: the dataclass of its options.
        description: the first text of `--help`.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        parsed = _parse(options, description)
        if not parsed.debug:
            # Orbax also logs the tracebacks of what it raises: a thousand lines for a full disk.
            # Pillow logs a line for every file that it cannot read.
            for name in ("absl", "PIL"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
        make_cores_devices()
        keep_freed_memory()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be Unicode
        check_options(parsed, sys.argv[1:])
        with of_options():
            main(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        processes.leave(130)
    except BrokenPipeError:
        # Who read the output has seen enough, as `head` has: that is no failure. What is still in
        # the buffer must not be written when Python ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        processes.leave(128 + signal.SIGPIPE)
    except Exception as error:  # any error ends in one message
        if "--debug" in sys.argv:
            raise
        # It is told once, and not again by what libraries do when Python ends.
        sys.unraisablehook = threading.excepthook = lambda _: None
        lost = processes.lost_partner(error)
        told = lost or message_of(error) + way_out(error, options)
        print(f"error: {told}", file=sys.stderr)
        processes.leave(2 if isinstance(error, UsageError) and not lost else 1)


def _interrupt(number: int, _: Any) -> NoReturn:
    """Ctrl-C: the first ends the script in order; a second one, at once, if that takes long."""
    signal.signal(number, _interrupt_again)
    raise KeyboardInterrupt


def _interrupt_again(number: int, _: Any) -> NoReturn:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted again\n")
    os._exit(130)


def _parse(options: type[AnyOptions], description: str) -> AnyOptions:
    """The options of the command line.

    Raises:
        UsageError: one is mistyped or not allowed.
    """
    module = getattr(sys.modules["__main__"], "__spec__", None)  # as given to `python -m`
    prog = None if module is None else f"python -m {module.name.removesuffix('.__main__')}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, prog=prog, description=description)
    except SystemExit as stopped:
        if not stopped.code or not said.getvalue():
            raise
        raise UsageError(_in_one_line(said.getvalue())) from None


def _in_one_line(box: str) -> str:
    """What tyro says, in a frame of several lines, without its help text."""
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    wrong = lines[: next((i for i, line in enumerate(lines) if line.startswith("──")), None)]
    text = re.sub(r"^Error parsing \w+Options: ", "", " ".join(wrong))
    return shortened(f"{text}; --help lists the options")
