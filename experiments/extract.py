r"""Images or clips -> features on disk, once, for any number of trainings.

    python -m experiments.extract --dataset folder:data/cifar10 \
        --mask-ratio 0.75 --features-dir features

Writes one Zarr group for each split; of `images:PATH`, which has no labels, one alone. Killed and
started again, it resumes with the first missing chunk of 1,024 images. Give the same
`--features-dir` to the training scripts. `--out FILE.parquet` or `.npz` writes all splits into one
file as well, for other programs or for `--dataset features:FILE`: `x`, `y` (the name of the class),
`split` and `example_id`. Sparse rows and examples with many labels are refused: they are trained on
as they are. Expected: 60,000 CIFAR-10 images through mae-nano-cifar10 at ratio 0.75
take about a minute on 2 CPU cores.
"""

import dataclasses
import pathlib
from typing import ClassVar

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.bands import in_full
from experiments.runs.images import progress_bar
from experiments.runs.inputs import open_inputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.splits import DenseSplit
from jist.features.tables import check_suffix, write_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractOptions(Options, ImageOptions):
    """Options of feature extraction."""

    takes_unlabelled: ClassVar[bool] = True

    features_dir: pathlib.Path = pathlib.Path("features")
    """Where the features are written, one directory for each data set, split, encoder and mask."""
    out: pathlib.Path | None = None
    """A file to write all splits to as well: .npz or .parquet."""


def main(options: ExtractOptions) -> None:
    """Extracts all splits."""
    if options.out is not None:
        check_suffix(options.out)
    inputs = open_inputs(in_full(options))
    several = isinstance(inputs, ManyLabelInputs)
    if several or inputs.sparse_rows:
        what = "examples with many labels" if several else "sparse rows"
        raise UsageError(
            f"dataset={options.dataset} holds {what}, which are trained on as they are: there are "
            "no vectors to extract; examples with one class each and dense vectors have some"
        )
    with progress_bar() as progress:
        splits = inputs.splits(options.ratio, options.features_dir, progress)
    stores = {name: s.features for name, s in splits.items() if isinstance(s, DenseSplit)}
    for split, store in stores.items():
        print(
            f"{split}: {len(store.label)} vectors of {inputs.dim} numbers, "
            f"{len(store.attributes['skipped'])} examples skipped"
        )
    if options.out is not None:
        write_table(stores, options.out)
        print(f"written: {options.out}")


if __name__ == "__main__":
    run(main, ExtractOptions, __doc__ or "")
