"""Results as a table."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.figures.summaries import metric_of


def print_results(results: list[dict[str, Any]]) -> None:
    """Prints one row per training: accuracy or what else chose its epoch, size and traffic.

    Args:
        results: the results of a run, all of one task, whose metric is a share.
    """
    metric = metric_of(results[0])
    shown = metric.replace("_", "\n")
    table = Table(
        title=f"Test examples: {metric.replace('_', ' ')}, and what each worker needs for it",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("patches\nremoved", "workers"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("training", no_wrap=True)
    for column in (
        f"{shown}\nlast",
        f"{shown}\nbest",
        "parameters\nper worker",
        "received\n(MB)",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            "–" if result["mask"] == "none" else f"{result['ratio']:.0%}",
            str(result["workers"]),
            result["strategy"],
            f"{result[f'last_test_{metric}']:.1%}",
            f"{result[f'best_test_{metric}']:.1%}",
            f"{result['parameters_per_worker']:,}",
            f"{result['bytes_received_per_worker'] / 1e6:,.1f}",
        )
    Console().print(table)
