"""Which way an IST round's pieces travel: what was asked, what is possible, and its bytes."""

import dataclasses
from typing import Any

import optax

from jist import costs, ist
from jist.ist import crossed
from jist.ist import exchange as travel
from jist.ist.wire import LOG8, Wire
from jist.strategies import exchanges
from jist.strategies.exchanges import Exchange

EXCHANGES = ("auto", "replicated", "sharded", "direct")


@dataclasses.dataclass(frozen=True)
class Question:
    """What the choice depends on.

    Attributes:
        asked: one of `EXCHANGES`.
        partition: the scheme by which neurons are assigned.
        assignment: of the model's neurons.
        travelling: the trees that an exchange moves, their axes, and as what they travel.
        workers: number of workers n.
        devices: number of devices D.
        replicas: how many workers have each neuron.
        participants: how many workers take part in a round.
        reconstructed: how many layers are reconstructed, for which every device needs all.
        outer: the optimiser of what a round has changed, or None.
        ema_decay: of a moving average of the parameters, or None.
    """

    asked: str
    partition: str
    assignment: ist.Assignment
    travelling: list[tuple[Any, Any, Wire]]
    workers: int
    devices: int
    replicas: int
    participants: int
    reconstructed: int
    outer: optax.GradientTransformation | None
    ema_decay: float | None


def choose(of: Question) -> tuple[Exchange, str]:
    """The exchange, and why, in words.

    Raises:
        ValueError: what was asked is not possible.
    """
    widths, part_widths = of.assignment.widths, of.assignment.part_widths
    if of.partition == "crossed" or of.asked == "direct":
        _check_direct(of)
        return exchanges.direct(of.workers, of.devices), "as the partition is crossed"
    replicated = exchanges.replicated(of.workers, part_widths, overlapping=of.replicas > 1)
    if of.asked == "replicated" or (of.asked == "auto" and of.devices == 1):
        return replicated, "as asked" if of.devices > 1 else "one device"
    try:
        _check_sharded(of)
    except ValueError as error:
        if of.asked == "sharded":
            raise
        return replicated, str(error)
    sharded = exchanges.sharded(of.workers, of.devices, widths)
    if of.asked == "sharded":
        return sharded, "as asked"
    trees = [
        costs.exchange_bytes(tree, axes, part_widths, of.workers, of.devices, wire)
        for tree, axes, wire in of.travelling
    ]
    received = {name: sum(tree[name] for tree in trees) for name in trees[0]}
    fewer = received["sharded"] <= received["replicated"]
    sizes = ", ".join(f"{size / 1e6:.3g} MB {how}" for how, size in received.items())
    reason = f"each of {of.devices} devices receives in a round: {sizes}"
    return sharded if fewer else replicated, reason


def _check_direct(of: Question) -> None:
    """Raises where neurons cannot be sent straight on."""
    if of.partition != "crossed":
        raise ValueError(f"exchange='direct' needs partition='crossed', got {of.partition!r}")
    for name, value, needed in (
        ("replicas", of.replicas, 1),
        ("outer", of.outer, None),
        ("ema_decay", of.ema_decay, None),
        ("participating workers", of.participants, of.workers),
        ("reconstructed layers", of.reconstructed, 0),
    ):
        if value != needed:
            raise ValueError(f"partition='crossed' needs {name}={needed}, got {value}")
    if of.asked not in ("auto", "direct"):
        raise ValueError(f"partition='crossed' needs exchange='direct' or 'auto', got {of.asked!r}")
    _, _, wire = of.travelling[0]
    if wire == LOG8:
        raise ValueError(
            "exchange_dtype='log8' needs an exchange whose owners keep what rounding leaves out, "
            "'replicated' or 'sharded', got 'direct'"
        )
    crossed.check_crossed(of.assignment.widths, of.workers)
    _check_specs(of)


def _check_sharded(of: Question) -> None:
    """Raises where shards cannot be owned by these devices."""
    if of.partition != "stratified":
        raise ValueError(f"exchange='sharded' needs partition='stratified', got {of.partition!r}")
    if of.replicas > 1:
        raise ValueError(f"exchange='sharded' needs replicas=1, got {of.replicas}")
    if of.reconstructed:
        raise ValueError(
            "exchange='sharded' needs a model that reconstructs nothing: that takes the full "
            f"network on every device, got {of.reconstructed} layers that are"
        )
    travel.check_owners(of.assignment.widths, of.devices)
    _check_specs(of)


def _check_specs(of: Question) -> None:
    for tree, axes, _ in of.travelling:
        travel.owner_specs(tree, axes)
