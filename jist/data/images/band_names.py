"""Bands by number or by name, however a product spells it."""

import re
from collections.abc import Sequence


def number_of(band: int | str, described: Sequence[tuple[int, str | None]]) -> int:
    """The number of a band among (number, description), by number or by name.

    Names are compared as `plain_name`: B04, B4 and "B4, central wavelength 665 nm" are one.

    Raises:
        LookupError: there is no such band, or there are several; those that are there are named.
    """
    if isinstance(band, int):
        found = [number for number, _ in described if number == band]
    else:
        found = [number for number, name in described if name == band]
        if not found:
            plain = plain_name(band)
            found = [n for n, name in described if name and plain_name(name) == plain]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{number} ({name or 'no name'})" for number, name in described)
    raise LookupError(f"{'no' if not found else 'more than one'} band {band!r}; it has {there}")


def shown_channels(names: Sequence[int | str], channels: int) -> tuple[int, int, int]:
    """Which channels are shown as red, green and blue: B4, B3, B2 where bands are named so.

    Else the first three; of fewer, the first as grey.

    >>> shown_channels(["B02", "B03", "B04", "B08"], 4), shown_channels([], 2)
    ((2, 1, 0), (0, 0, 0))
    """
    plain = [plain_name(name) if isinstance(name, str) else "" for name in names]
    for red, green, blue in (("B4", "B3", "B2"), ("RED", "GREEN", "BLUE")):
        if {red, green, blue} <= set(plain):
            return plain.index(red), plain.index(green), plain.index(blue)
    return (0, 1, 2) if channels > 2 else (0, 0, 0)


def plain_name(name: str) -> str:
    """A band's name without what differs between products.

    >>> plain_name("B04"), plain_name("b8a"), plain_name("B4, central wavelength 665 nm")
    ('B4', 'B8A', 'B4')
    """
    return re.sub(r"(?<=[A-Z_])0+(?=\d)", "", name.partition(",")[0].strip().upper())
