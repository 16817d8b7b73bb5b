"""What is read off the cells: Table 1, and measured seconds beside those of the model."""

from collections.abc import Sequence
from typing import Any

from experiments.network.cells import JIST, seconds_to, times, typical
from experiments.network.links import FRAME, PAYLOAD, UNSHAPED, parse_rate
from jist.durations import messages_of, round_seconds, step_line

NAMES = {
    (JIST, "data_parallel"): "data parallel",
    (JIST, "local_sgd"): "local SGD",
    (JIST, "diloco"): "DiLoCo",
    (JIST, "ist"): "IST",
    (JIST, "ensemble"): "ensemble",
    ("torch", "data_parallel"): "PyTorch DDP",
    ("torch", "local_sgd"): "PyTorch local SGD",
    ("torch", "ist"): "PyTorch IST, one server",
}


def table(
    cells: Sequence[dict[str, Any]], curves: dict[str, Any], targets: Sequence[float]
) -> list[dict[str, Any]]:
    """Table 1 as rows: of every shaped cell the seconds to each target, and what a round took.

    Args:
        cells: what `cells.measure` returned.
        curves: of every strategy and number of nodes, as `strategy-n`.
        targets: accuracies.

    Returns:
        Rows with "seconds_to" {target: seconds, None if it was not reached}, "ist_is_faster_by"
        (times, at each target), "round_s", "computing_s" and "waiting_s" of a typical round, its
        "waiting_share", "received_bytes" (the mean of the nodes at their interfaces),
        "counted_bytes", "predicted_round_s" and "prediction_is_off_by", relative.
    """
    by_key = {(c["variant"], c["strategy"], c["nodes"], c["bandwidth"]): c for c in cells}
    rows = []
    for cell in cells:
        if cell["bandwidth"] == UNSHAPED:
            continue
        curve = curves[f"{cell['strategy']}-{cell['nodes']}"]
        elapsed = times(cell, len(curve["accuracies"]))
        reached = {str(t): seconds_to(t, curve["accuracies"], elapsed) for t in targets}
        whole, waiting = typical(cell), typical(cell, "waiting")
        row = {name: cell[name] for name in ("variant", "strategy", "nodes", "bandwidth", "k")}
        row |= {
            "seconds_to": reached,
            "timed_rounds": len(cell["seconds"]) - 1,
            "rounds": len(curve["accuracies"]),
            "round_s": whole,
            "steps": curve["steps"],
            "computing_s": typical(cell, "computing"),
            "waiting_s": waiting,
            "waiting_share": waiting / whole,
            "received_bytes": typical(cell, "received"),
            "counted_bytes": _bytes(cell, curve, curves),
        }
        alone = by_key.get((cell["variant"], cell["strategy"], cell["nodes"], UNSHAPED))
        if alone:
            row["predicted_round_s"] = predicted(cell, alone, row["counted_bytes"], curve["steps"])
            row["prediction_is_off_by"] = row["predicted_round_s"] / whole - 1
        rows.append(row)
    for row in rows:
        ist = next((r for r in rows if _beside_ist(r, row)), None)
        pairs = {t: (s, ist and ist["seconds_to"][t]) for t, s in row["seconds_to"].items()}
        row["ist_is_faster_by"] = {t: s / i if s and i else None for t, (s, i) in pairs.items()}
    return rows


def _beside_ist(row: dict[str, Any], other: dict[str, Any]) -> bool:
    alike = all(row[name] == other[name] for name in ("nodes", "bandwidth"))
    return alike and (row["variant"], row["strategy"]) == (JIST, "ist")


def _bytes(cell: dict[str, Any], curve: dict[str, Any], curves: dict[str, Any]) -> int:
    """Bytes that a node receives in a round, as counted; of a server those of its own link."""
    if (cell["variant"], cell["strategy"]) != ("torch", "ist"):
        return curve["bytes_received"]
    # A scatter and a gather of all subnets, one after the other: as much as an all-reduce.
    like = curves.get(f"local_sgd-{cell['nodes']}", curve)
    return like["bytes_received"]


def predicted(cell: dict[str, Any], alone: dict[str, Any], received: int, steps: int) -> float:
    """Seconds of a round by the model, from a step's where nothing holds the links back.

    Args:
        cell: the cell.
        alone: the same without shaping.
        received: bytes that a node receives in a round.
        steps: of a round.
    """
    payload = parse_rate(cell["bandwidth"]) * PAYLOAD / FRAME
    messages = messages_of(cell["strategy"], cell["nodes"], steps)
    step = typical(alone) / steps
    return round_seconds(step, steps, received, payload, messages=messages, delay=cell["delay_s"])


def line_of_steps(
    cells: Sequence[dict[str, Any]], curves: dict[str, Any]
) -> tuple[float, float] | None:
    """Seconds of a step without operations, and of an operation; None without unshaped cells."""
    alone = [c for c in cells if c["bandwidth"] == UNSHAPED and c["variant"] == JIST]
    if not alone:
        return None
    of = [curves[f"{c['strategy']}-{c['nodes']}"] for c in alone]
    return step_line(
        [curve["flops"] / curve["steps"] for curve in of],
        [typical(c) / curve["steps"] for c, curve in zip(alone, of, strict=True)],
    )


def steps_ratios(curves: dict[str, Any], targets: Sequence[float]) -> dict[int, float]:
    """How many times the steps of IST data parallel training needs, by number of nodes.

    To the highest target that both reach; numbers of nodes without one are left out.
    """
    found = {}
    for name, ours in curves.items():
        strategy, _, nodes = name.rpartition("-")
        whole = curves.get(f"data_parallel-{nodes}")
        if strategy != "ist" or whole is None:
            continue
        for target in sorted(targets):
            needed = [seconds_to(target, of["accuracies"], _steps(of)) for of in (whole, ours)]
            if needed[0] and needed[1]:
                found[int(nodes)] = needed[0] / needed[1]
    return found


def _steps(curve: dict[str, Any]) -> list[float]:
    return [curve["steps"] * (number + 1.0) for number in range(len(curve["accuracies"]))]


def name_of(row: dict[str, Any]) -> str:
    """How a row is called."""
    return NAMES[row["variant"], row["strategy"]]
