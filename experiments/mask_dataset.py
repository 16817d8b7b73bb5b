r"""A data set of masked images: only the visible patches and their indices, on disk.

    python -m experiments.mask_dataset --dataset folder:data/cifar10 --mask-ratio 0.75 \
        --out masked/cifar10-0.75
    python -m experiments.distributed --dataset masked:masked/cifar10-0.75 --run-dir runs/masked

This is what a sensor would send (Kariotakis et al., CPAL 2024, §3.1.1, "Datasets Size"). Features
extracted from it equal those of the full images under the same masks, fixed or natural. The encoder
gives the sizes of images and patches; its weights are not used. Killed and started again, it
resumes. Prints the true bytes beside the paper's formula. Expected: a minute for 60,000 CIFAR-10
images on 2 cores.
"""

import dataclasses
import math
import pathlib

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.bands import in_full
from experiments.runs.directory import write_json
from experiments.runs.images import build_encoder, dataset_of, progress_bar
from experiments.runs.masks import masks_of
from jist import costs
from jist.data import Dataset, splits_of
from jist.masked_images import write_masked
from jist.models import MAEEncoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskDatasetOptions(Options, ImageOptions):
    """Options of masking."""

    out: pathlib.Path
    """Where the masked images are written, one directory for each split."""


def main(options: MaskDatasetOptions) -> None:
    """Writes all splits and reports their sizes."""
    if options.dataset.startswith("masked:"):
        raise UsageError(f"dataset must hold whole images, got {options.dataset}")
    options = in_full(options)
    encoder = build_encoder(options)
    if not isinstance(encoder, MAEEncoder):
        raise UsageError(f"encoder={options.encoder} needs whole images: it has no patches to keep")
    masks = masks_of(options, options.ratio, encoder)
    sizes = []
    for split in splits_of(options.dataset, data_dir=options.data_dir):
        dataset = dataset_of(options, split)
        with progress_bar() as progress:
            group = write_masked(
                dataset,
                options.out / split,
                masks=masks,
                encoder=encoder,
                skip_unreadable=options.skip_unreadable,
                skip_empty=options.skip_empty,
                progress=progress,
            )
        sizes.append(row(split, group, side_of_first(dataset, group["skipped"])))
    write_json(options.out / "sizes.json", {"sizes": sizes})
    show(sizes)


def side_of_first(dataset: Dataset, skipped: list[str]) -> float:
    """Side in pixels of a square with the area of the first readable image; 0 if there is none."""
    readable = (i for i in range(len(dataset)) if dataset.locate(i) not in skipped)
    first = next(readable, None)
    return 0.0 if first is None else math.prod(dataset.open(first).size) ** 0.5


def row(split: str, group: dict, side: float) -> dict:
    """The sizes of one split.

    Args:
        split: its name.
        group: what `write_masked` returns.
        side: side of the original images in pixels, taken to be that of the first.
    """
    left_out = len(group["skipped"]) + len(group["empty"])
    images = group["examples"] - left_out
    masks, patches = group["masks"], (group["image_size"] // group["patch_size"]) ** 2
    kept = group["patches_kept"] / (images * patches) if images else 0.0
    ratio = masks["ratio"] if masks["name"] == "fixed" else 1 - kept
    return {
        "split": split,
        "mask": masks["name"],
        "images": images,
        "left_out": left_out,
        "ratio": ratio,
        "image_size": group["image_size"],
        "bytes_raw": group["bytes"]["raw"],
        "bytes_on_disk": group["bytes"]["files"],
        "bytes_paper": costs.dataset_bytes_paper(group["image_size"], ratio, images),
        "original_size": side,
        "bytes_paper_original_size": round(side**2 * (1 - ratio) * images * costs.BYTES),
    }


def show(sizes: list[dict]) -> None:
    """Prints the sizes of all splits."""
    table = Table(title="Masked images: sizes in MB", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (
        "split",
        "images",
        "left\nout",
        "patches\nremoved",
        "raw",
        "on disk",
        "paper",
        "paper, at\nfull size",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for size in sizes:
        table.add_row(
            size["split"],
            f"{size['images']:,}",
            f"{size['left_out']:,}",
            f"{size['ratio']:.1%}",
            *(
                f"{size[name] / 1e6:,.3f}"
                for name in (
                    "bytes_raw",
                    "bytes_on_disk",
                    "bytes_paper",
                    "bytes_paper_original_size",
                )
            ),
        )
    Console().print(table)
    first = sizes[0]
    print(
        f"masks: {first['mask']}. raw: the kept patches of {first['image_size']} × "
        f"{first['image_size']} pixels and their indices, one byte a channel. on disk: all files, "
        "compressed.\npaper: its formula, H × W × (1 - r) × 4 bytes an image, which leaves the "
        f"channels out; at full size, of the {first['original_size']:.0f} × "
        f"{first['original_size']:.0f} pixels that the first image had"
    )


if __name__ == "__main__":
    run(main, MaskDatasetOptions, __doc__ or "")
