"""One prediction as a line of text, as JSON, and as a row of a table."""

import json
import pathlib
from typing import Any

_ESCAPED = {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}


def true_class(name: str, class_names: list[str]) -> str | None:
    """The nearest folder above an image that is called like a class, if one is."""
    folders = reversed(pathlib.PurePath(name).parts[:-1])
    return next((folder for folder in folders if folder in class_names), None)


def row_of(
    name: str, probabilities: dict[str, float], true: str | None, spread: float | None
) -> dict[str, Any]:
    """The prediction for one example as a row of a table: the likeliest classes, one by one."""
    row: dict[str, Any] = {"image": name} | ({} if true is None else {"true": true})
    for place, (called, probability) in enumerate(probabilities.items(), start=1):
        end = "" if place == 1 else f"_{place}"
        row |= {f"class{end}": called, f"probability{end}": probability}
    return row | ({} if spread is None else {"spread": spread})


def show(
    name: str, probabilities: dict[str, float], json_lines: bool, most: int, spread: float | None
) -> None:
    """Prints the prediction for one example, whose likeliest class stands first.

    Args:
        name: of the example.
        probabilities: of its classes, the likeliest first.
        json_lines: as JSON, with all of them, in place of text.
        most: how many of them as text.
        spread: deviation of the probability of the first between several masks.
    """
    best = next(iter(probabilities))
    if json_lines:
        every = {of: round(p, 6) for of, p in probabilities.items()}
        record = {"image": name, "class": best, "probabilities": every}
        record["probability"] = every[best]
        print(json.dumps(record | ({} if spread is None else {"spread": round(spread, 6)})))
    else:
        said = [f"{of}\t{p:.4f}" for of, p in [*probabilities.items()][:most]]
        # A name may hold a tab or a line break, and a prediction is one line.
        print(
            "\t".join(
                [name.translate(_ESCAPED), *said, *([] if spread is None else [f"± {spread:.4f}"])]
            )
        )
