"""Results of run directories, grouped by training, with mean and deviation over seeds."""

import dataclasses
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.command.errors import UsageError
from experiments.command.options import BATCH_SIZE, NATURAL, HeadOptions, StrategyOptions
from experiments.runs.heads import STRATEGIES
from experiments.runs.plan import MASKS
from jist.metrics import read_summary

# The options of older results, which do not list all of them.
DEFAULTS: dict[str, Any] = {
    **dataclasses.asdict(HeadOptions(batch_size=BATCH_SIZE, calibration=0)),
    **dataclasses.asdict(StrategyOptions()),
    "exchange": "replicated",
    **NATURAL,
}
# What every result of a head on CLS vectors says.
OF_IMAGES = {"encoder", "image_size", "patch_size", "feature_dim", "train_examples"}


@dataclasses.dataclass(frozen=True, order=True)
class Study:
    """The options that results of one table have in common.

    Attributes:
        dataset: the data set's name.
        encoder: the encoder's name.
        weights: the first digits of its SHA-256, because an encoder may be replaced under its name;
            empty if unknown or if the encoder is drawn from the seed.
        train_examples: examples that heads were trained on.
        epochs: epochs of training.
        hidden: widths of the hidden layers.
        norm: how subnetworks are corrected for missing inputs.
        dropout: share of a hidden layer's activations that is dropped.
        optimizer: adam, adamw or sgd.
        weight_decay: of adamw.
        lazy_rows: whether a step leaves alone the rows of features that the batch lacks.
        learning_rate: the optimiser's learning rate.
        batch_size: examples in a worker's batch.
        worker_data: examples of each worker, shared or sharded.
    """

    dataset: str
    encoder: str
    weights: str
    train_examples: int
    epochs: int
    hidden: tuple[int, ...]
    norm: str
    dropout: float
    optimizer: str
    weight_decay: float
    lazy_rows: bool
    learning_rate: float
    batch_size: int
    worker_data: str

    def __str__(self) -> str:
        encoder = f"{self.encoder} ({self.weights})" if self.weights else self.encoder
        facts = (self.dataset, encoder, f"{self.epochs} epochs", self.options)
        return ", ".join(filter(None, facts))

    @property
    def options(self) -> str:
        """The options of the heads that are not the defaults, without the epochs, in words."""
        of_head = [field.name for field in dataclasses.fields(self) if field.name in DEFAULTS]
        return _in_words({name: getattr(self, name) for name in of_head if name != "epochs"})


@dataclasses.dataclass(frozen=True, order=True)
class Method:
    """A training method: one line of a plot.

    Attributes:
        strategy: its name.
        workers: number of workers.
        mask: masks of the training images.
        options: the strategy's options that are not the defaults, in words.
    """

    strategy: str
    workers: int
    mask: str
    options: str = ""

    def __str__(self) -> str:
        name = {"centralized": "centralised", "ist": "IST"}.get(self.strategy, self.strategy)
        options = f", {self.options}" if self.options else ""
        if self.strategy == "centralized":
            return f"{name}{'' if self.mask == 'none' else f', {self.mask} masks'}{options}"
        mask = "" if self.mask in ("fixed", "none") else f", {self.mask} masks"
        return f"{name}, {self.workers} worker{'s' if self.workers > 1 else ''}{mask}{options}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """The results of one training at one ratio, one for each seed."""

    results: tuple[dict[str, Any], ...]

    def mean(self, metric: str) -> float:
        """Mean of a metric over the seeds."""
        return statistics.fmean(result[metric] for result in self.results)

    def deviation(self, metric: str) -> float | None:
        """Standard deviation of a metric over the seeds (n - 1); None for a single seed."""
        values = [result[metric] for result in self.results]
        return statistics.stdev(values) if len(values) > 1 else None

    def percent(self, metric: str) -> str:
        """Mean and deviation of a share, as "82.3 ± 0.4" or "82.3"."""
        deviation = self.deviation(metric)
        spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
        return f"{100 * self.mean(metric):.1f}{spread}"


Table = dict[Method, dict[float, Cell]]


def metric_of(result: dict[str, Any]) -> str:
    """The metric that chose a result's best epoch; older results, of classifiers, do not say it."""
    return result.get("metric", "accuracy")


def read_results(runs: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """The results in some run directories, or in copies of their `summary.json`.

    Raises:
        FileNotFoundError: there is no summary.
        UsageError: a result is not of a head on CLS vectors of images; or two hold the same
            training with the same seed but different results.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for run in runs:
        path = run / "summary.json" if run.is_dir() else run
        if not path.is_file():
            raise FileNotFoundError(f"no results at {run}: {path} is missing")
        for result in read_summary(path)["results"]:
            if not result.keys() >= OF_IMAGES:
                raise UsageError(
                    f"runs={run}: {result['run']} is no head on CLS vectors of images, as those of "
                    "experiments.centralized, distributed, sweep and compare"
                )
            key = (_study(result), _method(result), result["ratio"], result["seed"])
            source = run / result.get("directory", "")
            known = found.setdefault(key, result | {"source": str(source)})
            best = f"best_test_{metric_of(result)}"
            if known.get(best) != result[best]:
                raise UsageError(
                    f"{known['source']} and {source} both hold {result['run']} of {key[0].dataset} "
                    f"with seed {result['seed']}, with different results; give one of them"
                )
    return list(found.values())


def by_study(results: Sequence[dict[str, Any]]) -> dict[Study, Table]:
    """Study -> training method -> ratio -> cell, all in order.

    Under natural masks the ratio is measured, not chosen, and differs between seeds; the mean over
    the seeds is then used.
    """
    tables: dict[Study, dict[Method, list[dict[str, Any]]]] = {}
    for result in results:
        tables.setdefault(_study(result), {}).setdefault(_method(result), []).append(result)
    return {
        study: {method: _cells(method, found) for method, found in sorted(methods.items())}
        for study, methods in sorted(tables.items())
    }


def _cells(method: Method, results: list[dict[str, Any]]) -> dict[float, Cell]:
    if method.mask not in MASKS:
        cell = Cell(tuple(results))
        return {round(cell.mean("ratio"), 4): cell}
    ratios = sorted({result["ratio"] for result in results})
    return {
        ratio: Cell(tuple(result for result in results if result["ratio"] == ratio))
        for ratio in ratios
    }


def _study(result: dict[str, Any]) -> Study:
    facts = DEFAULTS | result
    facts["hidden"] = tuple(facts["hidden"])
    random = facts["encoder"].startswith("random-")
    facts["weights"] = "" if random else facts.get("encoder_sha256", "")[:8]
    return Study(**{field.name: facts[field.name] for field in dataclasses.fields(Study)})


def _method(result: dict[str, Any]) -> Method:
    facts = DEFAULTS | result
    strategy = facts["strategy"]
    _, takes = STRATEGIES[strategy]
    # Other strategies exchange nothing at the end of a round, so its length does not matter.
    rounds = ("local_steps",) if strategy in ("ist", "local_sgd", "diloco") else ()
    own = (*rounds, *takes, "alpha", "max_missing", "no_data")
    options = _in_words({name: facts[name] for name in own})
    return Method(strategy, facts["workers"], facts["mask"], options)


def _in_words(options: dict[str, Any]) -> str:
    """The options that are not the defaults, as "hidden 500-500, batch size 32"."""
    unlike = {name: value for name, value in options.items() if value != DEFAULTS[name]}
    if "hidden" in unlike:
        unlike["hidden"] = "-".join(map(str, unlike["hidden"]))
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in unlike.items())
