"""Table 1, printed: measured, and the paper's below."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.figures import paper
from experiments.network import report


def print_table(rows: list[dict[str, Any]], targets: Sequence[float]) -> None:
    """Prints Table 1: seconds to each target, and those of a round; the paper's table below."""
    shown = Table(
        title="seconds to a test accuracy (times IST's)", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in ("nodes", "link", ""):
        shown.add_column(column)
    of_round = ("a round (s)", "steps", "waiting", "MB received", "counted", "model is off by")
    for column in (*(f"{100 * target:g} %" for target in targets), *of_round):
        shown.add_column(column, justify="right")
    for row in rows:
        off = row.get("prediction_is_off_by")
        shown.add_row(
            str(row["nodes"]),
            row["bandwidth"],
            report.name_of(row),
            *(_reached(row, str(target)) for target in targets),
            f"{row['round_s']:.3g}",
            str(row["steps"]),
            f"{row['waiting_share']:.0%}",
            f"{row['received_bytes'] / 1e6:.2f}",
            f"{row['counted_bytes'] / 1e6:.2f}",
            "" if off is None else f"{off:+.0%}",
        )
    Console(width=150).print(shown)
    printed = Table(
        title="VLDB 2022, Table 1, 2-layer / 3-layer: seconds", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in ("nodes", "", *(f"{100 * target:g} %" for target in paper.TIME_TARGETS)):
        printed.add_column(column)
    for strategy, name in paper.TIME_STRATEGIES.items():
        for place, nodes in enumerate(paper.TIME_NODES):
            cells = [
                " / ".join(str(paper.TIMES[layers, target][strategy][place]) for layers in (2, 3))
                for target in paper.TIME_TARGETS
            ]
            printed.add_row(str(nodes), name, *cells)
    Console(width=100).print(printed)


def _reached(row: dict[str, Any], target: str) -> str:
    seconds, times = row["seconds_to"][target], row["ist_is_faster_by"][target]
    if seconds is None:
        return "not reached"
    return f"{seconds:.3g}" + ("" if times is None else f" ({times:.2f})")
