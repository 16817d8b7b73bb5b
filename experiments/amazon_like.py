r"""Writes synthetic examples of the shape of Amazon-670k, as text of the Repository's format.

    python -m experiments.amazon_like --scale 0.01 --out data/amazon-like

Nothing of it is real: frequencies of labels and features follow power laws, and a structure is
planted that a network can learn (`jist.data.sparse.synthetic`). It stands for the size of the
data set of Yuan et al. (VLDB 2022, §5), 490,449 + 153,025 examples with 135,909 features and
670,091 labels; accuracies on it say nothing about real ones. `--scale` makes all four smaller.
Expected on one CPU core: 2 seconds at a scale of 0.01, 3 minutes and 0.6 GB at 1.
"""

import dataclasses
import pathlib

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.images import progress_bar
from jist.data.sparse import SparseExamples
from jist.data.sparse.synthetic import BLOCK, EXAMPLES, FEATURES, LABELS, AmazonLike
from jist.staging import replaced


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmazonLikeOptions(Options):
    """Options of the generator."""

    out: pathlib.Path
    """Directory for train.txt and test.txt."""
    scale: float = 0.01
    """Share of Amazon-670k's examples, features and labels, in (0, 1]."""
    examples_scale: float | None = None
    """Share of its examples, if it is another one."""
    seed: int = 0
    """Decides everything."""


def main(options: AmazonLikeOptions) -> None:
    """Writes both splits."""
    for name in ("scale", "examples_scale"):
        share = getattr(options, name)
        if share is not None and not 0 < share <= 1:
            raise UsageError(f"{name} must lie in (0, 1], got {share}")
    share = options.scale if options.examples_scale is None else options.examples_scale
    counts = {split: max(round(share * count), 1) for split, count in EXAMPLES.items()}
    source = AmazonLike(
        max(round(options.scale * FEATURES), 1), max(round(options.scale * LABELS), 1), options.seed
    )
    options.out.mkdir(parents=True, exist_ok=True)
    there = [f"{split}.txt" for split in EXAMPLES if (options.out / f"{split}.txt").exists()]
    if there:
        raise UsageError(f"out={options.out} must hold no {there[0]} yet")
    for split, count in counts.items():
        write(source, split, count, options.out / f"{split}.txt")


def write(source: AmazonLike, split: str, count: int, path: pathlib.Path) -> None:
    """Writes the first examples of a split."""
    with (
        replaced(path) as staging,
        open(staging, "w", encoding="ascii") as file,
        progress_bar() as progress,
    ):
        bar = progress.add_task(f"{split} (synthetic)", total=count)
        file.write(f"{count} {source.features} {source.labels}\n")
        for number in range(-(-count // BLOCK)):
            some = lines(source.block(split, number))[: count - number * BLOCK]
            file.writelines(some)
            progress.update(bar, advance=len(some))
    print(f"written: {path}, {count} synthetic examples, {path.stat().st_size / 1e6:.1f} MB")


def lines(examples: SparseExamples) -> list[str]:
    """The lines of some examples."""
    entries = examples.features.entries
    pairs = [
        f"{index}:{value:g}"
        for index, value in zip(
            entries["indices"].tolist(), entries["values"].tolist(), strict=True
        )
    ]
    labels = list(map(str, examples.labels.entries.tolist()))
    own, others = examples.labels.offsets.tolist(), examples.features.offsets.tolist()
    return [
        f"{','.join(labels[own[i] : own[i + 1]])} {' '.join(pairs[others[i] : others[i + 1]])}\n"
        for i in range(len(examples))
    ]


if __name__ == "__main__":
    run(main, AmazonLikeOptions, __doc__ or "")
