"""How many workers train together, and what happens between two rounds."""

import dataclasses
from typing import Any

from experiments.command.errors import UsageError

OUTER = ("none", "nesterov")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundOptions:
    """What happens between two rounds, and who takes part."""

    exchange: str = "auto"
    """How parameters are stored (ist): replicated, every device holds the whole network; sharded,
    each holds a shard of it (needs --partition stratified and hidden widths that the number of
    devices divides); direct, each holds what its workers trained and sends it on, half the bytes
    (with --partition crossed); or auto: direct for a crossed partition, sharded where that is
    possible and a device receives no more bytes."""
    state_dtype: str = "none"
    """Type in which the optimiser's state is exchanged (ist): bfloat16, log8 (logarithmic codes of
    8 bits), or none for that of --exchange-dtype."""
    outer: str = "none"
    """Outer optimiser of what a round has changed (ist): nesterov, or none. diloco always has one.
    Parameters that a round did not train stand still."""
    outer_lr: float = 0.7
    """Learning rate of the outer optimiser."""
    outer_momentum: float = 0.9
    """Nesterov's momentum of the outer optimiser, in [0, 1)."""
    participation: float = 1.0
    """Share of the workers that takes part in a round (ist, local_sgd and diloco), in (0, 1];
    neurons of the absent keep their values."""
    replicas: int = 1
    """How many workers have each neuron (ist); what they have trained is averaged."""
    ema_decay: float | None = None
    """Decay per round, in (0, 1), of a moving average of the parameters, which is then what is
    tested and kept: 0.97 averages some 33 rounds. By default the last ones are. Not with
    --partition crossed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrategyOptions(RoundOptions):
    """How many workers train the head together."""

    strategy: str = "ist"
    """ist, data_parallel, local_sgd, diloco, ensemble or centralized."""
    workers: int = 4
    """Number of workers n."""
    local_steps: int = 50
    """Steps J of every worker in a round. The end of an epoch ends its last round early: J is at
    most the steps of an epoch."""
    partition: str = "uniform"
    """How neurons are assigned: uniform or stratified (ist and ensemble), rolling (ist): windows
    that move on every round, or crossed (ist): as many from every worker that had them last, so
    that they can be sent straight on; needs hidden widths that the cube of the workers divides."""
    optimizer_state: str = "carry"
    """The optimiser's state between rounds (ist and local_sgd): carry (it moves with its neurons,
    or is averaged) or reset."""
    exchange_dtype: str = "none"
    """Type in which parameters are exchanged (ist): bfloat16, log8 (logarithmic codes of 8 bits; of
    trained parameters their changes), or none for their own type."""
    shares: str | None = None
    """Share of the neurons of each worker (ist), e.g. 0.5,0.25,0.25; by default all are equal."""
    worker_data: str = "shared"
    """Examples of each worker: shared, every worker sees all; or sharded, each has its own."""
    alpha: float | None = None
    """Concentration of the Dirichlet distribution that skews sharded examples by label: the
    smaller, the more skewed. By default all workers have the same mix of classes."""

    def __post_init__(self) -> None:
        for name in ("workers", "local_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.outer not in OUTER:
            raise UsageError(f"outer must be one of {OUTER}, got {self.outer!r}")
        for name in ("outer_lr", "outer_momentum"):
            value = getattr(self, name)
            if (
                self.strategy == "ist"
                and self.outer == "none"
                and value != getattr(type(self), name)
            ):
                raise UsageError(
                    f"--{name.replace('_', '-')} {value} needs --outer nesterov with --strategy ist"
                )

    def config(self) -> dict[str, Any]:
        """The options as JSON, as runs before there was a choice have written them.

        How pieces travel does not decide a result: auto is written like replicated, or like direct,
        the only way of a crossed partition.
        """
        config = dataclasses.asdict(self)
        for field in dataclasses.fields(RoundOptions):
            if config[field.name] == field.default:
                del config[field.name]
        return {"exchange": "direct" if self.partition == "crossed" else "replicated"} | config
