"""From a dataclass of options to a command line with clear errors."""

import dataclasses
import io
import logging
import pathlib
import re
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from experiments.command import processes
from experiments.command.cpu import keep_freed_memory, make_cores_devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every script."""

    debug: bool = False
    """Show the traceback of an error."""


AnyOptions = TypeVar("AnyOptions", bound=Options)


def run(main: Callable[[AnyOptions], None], options: type[AnyOptions], description: str) -> None:
    """Parses the command line and runs `main`.

    A wrong argument ends with exit code 2, a failure with 1, each with one message on standard
    error; a traceback is shown only with `--debug`.

    Args:
        main: the script.
        options: the dataclass of its options.
        description: the first text of `--help`.
    """
    module = getattr(sys.modules["__main__"], "__spec__", None)  # as given to `python -m`
    prog = None if module is None else f"python -m {module.name.removesuffix('.__main__')}"
    parsed = tyro.cli(options, prog=prog, description=description)
    if not parsed.debug:
        # Orbax also logs the tracebacks of what it raises: a thousand lines for a full disk.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    make_cores_devices()
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be Unicode
    try:
        check_seeds(parsed)
        check_local(parsed)
        main(parsed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        processes.leave(130)
    except Exception as error:  # any error ends in one message
        if parsed.debug:
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        processes.leave(2 if isinstance(error, ValueError) else 1)


def check_seeds(options: Options) -> None:
    """Checks the seed of a script, or its seeds.

    Raises:
        ValueError: there is none, or one that not all random generators accept: NumPy refuses
            negative seeds, and JAX's keys have 32 bits.
    """
    seeds = getattr(options, "seeds", ())
    if seeds == () and hasattr(options, "seeds"):
        raise ValueError("seeds must name at least one, got none")
    # Of a script that takes means, `seeds` is a number of them.
    for seed in (*(seeds if isinstance(seeds, tuple) else ()), getattr(options, "seed", 0)):
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), got {seed}")


def check_local(options: Options) -> None:
    """Checks that no path of a script is a URL.

    Raises:
        ValueError: one is; it would be made as a directory called `gs:`.
    """
    for field in dataclasses.fields(options):
        given = getattr(options, field.name)
        for value in given if isinstance(given, tuple) else (given,):
            # A Path has lost one slash of two; a data set's name has its kind before the path.
            of_path = isinstance(value, pathlib.Path) and re.match(
                r"[A-Za-z][\w+.-]+:/", str(value)
            )
            if of_path or (isinstance(value, str) and re.search(r"\w://[^/]", value)):
                raise ValueError(f"{field.name}={value}: a local or mounted path is needed")


def message_of(error: Exception) -> str:
    """The message of an error, with its type where the message alone is unclear."""
    text, kind = str(error), type(error).__name__
    return f"{kind}: {text}" if isinstance(error, KeyError) else text or kind
