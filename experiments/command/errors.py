"""Which errors are a user's: the type that ends a script with exit code 2, and its one line.

Libraries raise ValueError for many reasons (a full disk, an empty array), so it says nothing about
who is at fault.
"""

import contextlib
import traceback
from collections.abc import Iterator

LONGEST = 400  # characters of a message


class UsageError(ValueError):
    """An option has a value that is not allowed, or options do not go together."""


@contextlib.contextmanager
def of_options() -> Iterator[None]:
    """Inside, options become arguments of jist: what it refuses of them is a usage error.

    Only a ValueError that jist itself raises says so. One of a library below, or of a subclass,
    passes unchanged.

    Raises:
        UsageError: in the place of jist's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is ValueError and _raised_by_jist(error):
            raise UsageError(str(error)) from error
        raise


def _raised_by_jist(error: ValueError) -> bool:
    (*_, (frame, _)) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").split(".")[0] == "jist"


def message_of(error: Exception) -> str:
    """The message of an error in one line, with its type where the message alone is unclear."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, KeyError) or type(error) in (ValueError, TypeError, AttributeError):
        text = f"{kind}: {text}"  # nobody meant it to be read
    return shortened(text or kind)


def way_out(error: Exception, options: type) -> str:
    """What to do about an error, where an option of the script is for that; else nothing.

    Args:
        error: of the script.
        options: the class of its options.
    """
    # Told by its name: mistyped options need no JAX.
    if type(error).__name__ != "UnreadableImageError":
        return ""
    ways = []
    if "need a scale" in str(error) and hasattr(options, "scale"):
        ways.append("--bands and --scale read such bands, as in --bands 1,1,1 --scale 0,4000")
    if "--skip-unreadable" not in str(error) and hasattr(options, "skip_unreadable"):
        ways.append("--skip-unreadable leaves such images out, and lists them")
    return "".join(f"; {way}" for way in ways)


def shortened(text: str) -> str:
    """A message of at most `LONGEST` characters; of a longer one begin and end are kept."""
    if len(text) <= LONGEST:
        return text
    from jist import reasons  # imported late: mistyped options need no JAX

    return reasons.shortened(text, LONGEST)
