"""The error of a source that cannot be converted."""

from collections.abc import Collection

SHOWN = 4


class ConversionError(Exception):
    """A source that cannot be converted; the message is one line and says why."""


def some(names: Collection[str]) -> str:
    """A few of many names, and how many there are in all."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, … ({len(names)} in all)"
