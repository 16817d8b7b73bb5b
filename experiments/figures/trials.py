"""Trials that kill and damage, counted by what was done and how they ended."""

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def print_trials(trials: Sequence[dict], by: str, title: str, outcomes: Sequence[str]) -> None:
    """Prints how often what was done ended how.

    Args:
        trials: each with its "outcome".
        by: the field that says what was done.
        title: of the column of these.
        outcomes: all there can be, in the order of the columns.
    """
    counts = Counter((trial[by], trial["outcome"]) for trial in trials)
    table = Table(title=f"{len(trials)} trials", box=box.SIMPLE_HEAD)
    table.add_column(title)
    for outcome in outcomes:
        table.add_column(outcome, justify="right")
    for done in dict.fromkeys(trial[by] for trial in trials):
        table.add_row(str(done), *(str(counts[done, outcome]) for outcome in outcomes))
    Console().print(table)
