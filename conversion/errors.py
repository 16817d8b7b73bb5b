"""The error of a source that cannot be converted."""

from collections.abc import Collection

SHOWN = 4


class ConversionError(Exception):
    """A source cannot be converted; the message is one line and gives the reason."""


def some(names: Collection[str]) -> str:
    """The first few of many names, and their total number."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, … ({len(names)} in all)"
