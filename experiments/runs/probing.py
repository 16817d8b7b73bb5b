"""A probe: its heads, its options, the mean and deviation of its accuracies."""

import dataclasses
import pathlib
import statistics
from typing import Any

from experiments.command.bands import BandOptions
from experiments.command.cli import Options

# Which head on which features.
PROBES = (("linear", "cls"), ("mlp", "cls"), ("linear", "patch mean"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions(Options, BandOptions):
    """Options of the probe."""

    dataset: str = "digits"
    """digits, cifar10, resisc45, aid, eurosat, eurosat-ms, ucmerced, tfds:NAME[/CONFIG] (of
    TensorFlow Datasets), or folder:PATH."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45, aid, ..."""
    encoder: str = "mae-nano-cifar10"
    """Name of a shipped encoder, directory of another, hf:OWNER/NAME[@REVISION] of the Hugging Face
    hub (converted once), or random-nano, -tiny, -small, -base."""
    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9)
    """Masking ratios."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; each decides masks, initialisation and order of one repetition."""
    epochs: int = 30
    """How often a head sees the examples."""
    batch_size: int = 64
    """Examples in a batch."""
    encode_batch: int = 256
    """Images encoded at a time."""
    run_dir: pathlib.Path = pathlib.Path("runs/probe")
    """Where results are written; the same directory resumes where it stopped."""


def mean_and_deviation(results: list[dict[str, Any]], ratio: float, kind: str, head: str) -> str:
    """Accuracy in %, as "61.2 ± 0.3" over several seeds or "61.2" of one."""
    values = [
        100 * result["last_test_accuracy"]
        for result in results
        if (result["ratio"], result["features"], result["head"]) == (ratio, kind, head)
    ]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}" if values else ""
