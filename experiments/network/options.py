"""The options of the emulated cluster."""

import dataclasses
import pathlib

from experiments.command.cli import Options
from experiments.command.errors import UsageError
from experiments.command.options import (
    ExperimentOptions,
    HeadOptions,
    ImageOptions,
    StrategyOptions,
)
from experiments.network import links
from experiments.network.links import parse_delay, parse_rate

OF_PAPER = ("data_parallel", "local_sgd", "ist", "ensemble")
STRATEGIES = (*OF_PAPER, "diloco")
BESIDE = ("data_parallel", "local_sgd", "ist")
# What an exchange needs; any partition else.
PARTITIONS = {"sharded": "stratified", "direct": "crossed"}
# After so many steps of data parallel training the accuracy is read, which has no rounds.
DATA_PARALLEL_STEPS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options, ExperimentOptions):
    """Options of the emulated cluster."""

    optimizer: str = "sgd"
    """sgd, without momentum, as in the paper; or adam."""
    learning_rate: float = 0.01
    """Learning rate of all strategies."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates of which every strategy, on every number of nodes, takes the one that needs
    the fewest rounds to the highest target on held-out training examples, a tenth of them."""
    norm: str = "standardize"
    """How subnetworks are corrected for missing inputs."""
    nodes: tuple[int, ...] = (2, 4, 8)
    """Numbers of nodes, a worker on each."""
    bandwidth: tuple[str, ...] = ("1gbit", "100mbit")
    """Rates of each node's link, in each direction; the rate counts Ethernet frames."""
    delay: str = "1ms"
    """What a message takes from node to node beside its transmission. Other than 0ms needs a kernel
    with netem."""
    strategies: tuple[str, ...] = OF_PAPER
    """Of data_parallel, local_sgd, diloco, ist and ensemble."""
    torch: tuple[str, ...] = ()
    """The same in PyTorch over gloo: of data_parallel (DistributedDataParallel), local_sgd, and ist
    (the authors' scheme: one node scatters and gathers). Needs --optimizer sgd."""
    local_steps: int = 50
    """Steps J of a round of local_sgd, diloco, ist and ensemble."""
    exchange: str = "sharded"
    """How IST's parameters are stored: sharded (a node receives what it trains; nodes must divide
    the hidden widths), direct (it is sent straight on; the cube of the nodes must divide them) or
    replicated."""
    targets: tuple[float, ...] = (0.5, 0.6, 0.65)
    """Test accuracies of the table. Training ends at the highest one, or with --epochs."""
    timed_rounds: int | None = None
    """Rounds of a cell that run on the cluster at most; the others count as the median of those. By
    default all do."""
    dilation: int | None = None
    """k; by default the least with a core for every k nodes."""
    run_dir: pathlib.Path = pathlib.Path("runs/network")
    """Where results are written; the same directory goes on where it stopped."""

    def __post_init__(self) -> None:
        HeadOptions.__post_init__(self)
        ImageOptions.__post_init__(self)
        for name, allowed in (("strategies", STRATEGIES), ("torch", BESIDE)):
            wrong = [value for value in getattr(self, name) if value not in allowed]
            if wrong:
                raise UsageError(f"{name} must be of {allowed}, got {wrong[0]!r}")
        if not self.nodes or not 2 <= min(self.nodes) <= max(self.nodes) <= links.MOST_NODES:
            raise UsageError(f"nodes must lie in 2 ... {links.MOST_NODES}, got {self.nodes}")
        if not self.targets or not 0 < min(self.targets) <= max(self.targets) <= 1:
            raise UsageError(f"targets must lie in (0, 1], got {self.targets}")
        for name in ("local_steps", "timed_rounds", "dilation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.learning_rates and self.learning_rate != type(self).learning_rate:
            raise UsageError(
                f"--learning-rate is chosen of --learning-rates, got {self.learning_rate:g} beside"
            )
        for name in ("validation", "calibration"):
            if getattr(self, name) != getattr(HeadOptions, name):
                raise UsageError(
                    f"--{name} {getattr(self, name)} has no effect: targets are test accuracies"
                )
        if self.torch and self.optimizer != "sgd":
            raise UsageError(f"--torch needs --optimizer sgd, got {self.optimizer}")
        if self.torch and self.norm != "standardize":
            raise UsageError(f"--torch needs --norm standardize, got {self.norm}")
        for bandwidth in self.bandwidth:
            parse_rate(bandwidth)
        parse_delay(self.delay)

    def how(self, strategy: str, nodes: int) -> StrategyOptions:
        """A strategy on a number of nodes."""
        exchange = self.exchange if strategy == "ist" else StrategyOptions.exchange
        return StrategyOptions(
            strategy=strategy,
            workers=nodes,
            local_steps=min(DATA_PARALLEL_STEPS, self.local_steps)
            if strategy == "data_parallel"
            else self.local_steps,
            partition=PARTITIONS.get(exchange, "uniform"),
            exchange=exchange,
        )
