r"""Clouds over images: their patches dropped, against clouds painted in or filled up.

    python -m experiments.clouds --dataset folder:data/cifar10 --out runs/clouds

    python -m experiments.clouds --dataset folder:data/cifar10 --encoder runs/pretrain/encoder \
        --max-missing 0.5 --train 2000 --test 1000 --out runs/clouds-mae

The case of Kariotakis et al. (CPAL 2024, §2.1) for masks by nature. Simulated clouds hide a share
of the pixels of training and test images. A frozen encoder then sees: only the patches without any
cloud (`dropped`), or also those that lack at most a share of `--max-missing`, with the mean colour
there (`relaxed`); all patches, with the clouds painted white (`painted`); all patches, with the
encoder's mean colour in the place of clouds (`mean`), with the colour of the nearest pixel that is
visible (`nearest`), or with what the masked autoencoder itself predicts there (`reconstructed`), if
the encoder's directory holds a decoder (`experiments.pretrain` gives one to any encoder). A
logistic regression is fitted to the CLS vectors of each. Images without a patch that is free of
clouds are left out of all. The clouds follow the seed, and so does the choice of images. CPU time
is that of filling and encoding, all cores together, when nothing is compiled.

The same command with the same `--out` goes on where it stopped. Expected: half an hour for CIFAR-10
with the defaults on 2 CPU cores.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.command.bands import BandOptions
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import BANDS, ImageOptions
from experiments.figures import png
from experiments.runs import hub
from experiments.runs.bands import in_full
from experiments.runs.cloud_study import (
    CLEAR,
    DECODED,
    METHODS,
    RELAXED,
    Study,
    chosen,
    digests_of,
)
from experiments.runs.directory import check_pinned, read_json, write_json
from experiments.runs.images import build_encoder, check_sees_patches, dataset_of, progress_bar
from jist.models import MAE, load_mae

EXTENDED = ("covers", "seeds", "out", "debug")  # options that may differ when a study goes on


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudsOptions(Options, BandOptions):
    """Options of the study."""

    dataset: str = "digits"
    """As for experiments.extract."""
    data_dir: pathlib.Path | None = None
    """As for experiments.extract."""
    encoder: str = "mae-nano-cifar10"
    """As for experiments.extract."""
    methods: tuple[str, ...] = ()
    """Any of dropped, relaxed, painted, mean, nearest and reconstructed; by default all that the
    encoder can do, relaxed with --max-missing."""
    max_missing: float = 0.0
    """relaxed: share of a visible patch that may be under clouds, in [0, 1)."""
    covers: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    """Shares of the pixels under clouds, in (0, 1)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Decide the images and their clouds."""
    train: int = 5000
    """Training images, drawn by the seed; all if there are fewer."""
    test: int = 2000
    """Test images, likewise."""
    batch_size: int = 250
    """Images encoded at a time."""
    out: pathlib.Path = pathlib.Path("runs/clouds")
    """Where clouds.json and clouds.png are written."""


def main(options: CloudsOptions) -> None:
    """Measures the methods, and writes after every cover."""
    if not options.covers or not all(0 < cover < 1 for cover in options.covers):
        raise UsageError(f"covers must lie in (0, 1), got {options.covers}")
    if min(options.train, options.test, options.batch_size) < 1:
        raise UsageError("train, test and batch_size must be at least 1")
    methods, mae = methods_of(options)
    noted = {name: str(value) for name, value in dataclasses.asdict(options).items()}
    noted["methods"] = str(methods)
    pinned = digests_of(options.encoder, mae)
    rows = measured_before(options.out, noted, pinned)
    whole = {"options": noted, **pinned, "results": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        for seed in options.seeds:
            wanted = [cover for cover in (0.0, *options.covers) if not _has(rows, seed, cover)]
            if not wanted:
                continue
            study = open_study(options, seed, mae)
            study.compile((CLEAR, *methods))
            for cover in wanted:
                shown = methods if cover else (CLEAR,)
                bar = progress.add_task(f"seed {seed}, {cover:.0%} clouds", total=2 * len(shown))
                rows += study.measure(shown, cover, lambda bar=bar: progress.advance(bar))
                write_json(options.out / "clouds.json", whole)
    draw(rows, methods, options.out / "clouds.png", options.dataset)
    for row in summary(rows):
        print(
            f"{row['cover']:.0%}\t{row['method']}\t{row['mean']:.1%} ± {row['deviation']:.1%}\t"
            f"{row['bytes']:.0f} bytes\t{row['cpu_ms']:.2f} CPU ms"
        )
    print(f"written: {options.out}/clouds.json, {options.out}/clouds.png")


def methods_of(options: CloudsOptions) -> tuple[tuple[str, ...], MAE | None]:
    """The methods that are asked for, or all that there can be, and the model that reconstructs.

    Raises:
        UsageError: an unknown one, one without what it needs, or the need without the method.
    """
    unknown = [name for name in options.methods if name not in METHODS]
    if unknown:
        raise UsageError(f"methods must be some of {METHODS}, got {unknown[0]!r}")
    encoder = pathlib.Path(hub.local(options.encoder))
    has_decoder = (encoder / "decoder.safetensors").is_file()
    if DECODED in options.methods and not has_decoder:
        raise UsageError(
            f"methods: {DECODED} needs an encoder with its decoder, and encoder={options.encoder} "
            "has none (shipped encoders have none): give the encoder/ of an experiments.pretrain, "
            "or of a conversion of a source with a decoder"
        )
    if RELAXED in options.methods and not options.max_missing:
        raise UsageError(f"methods: {RELAXED} needs --max-missing")
    if options.max_missing and options.methods and RELAXED not in options.methods:
        raise UsageError(f"--max-missing {options.max_missing:g} needs --methods {RELAXED}")
    possible = {RELAXED: options.max_missing > 0, DECODED: has_decoder}
    methods = options.methods or tuple(name for name in METHODS if possible.get(name, True))
    return methods, load_mae(encoder) if DECODED in methods else None


def measured_before(out: pathlib.Path, noted: dict[str, str], pinned: dict[str, str]) -> list[dict]:
    """The rows that an earlier call has written.

    Args:
        out: where.
        noted: the options.
        pinned: digests of the encoder, which may be replaced under its name.

    Raises:
        UsageError: they are of another study; or files of before such studies could go on.
    """
    if not (out / "clouds.json").exists():
        return []
    there = read_json(out / "clouds.json")
    differ = [
        f"{name} is {there['options'].get(name)} there and {value} here"
        for name, value in noted.items()
        if name not in EXTENDED and there["options"].get(name) != value
    ]
    if differ:
        raise UsageError(
            f"out={out} holds another study; choose another --out or remove it: "
            + "; ".join(differ)
        )
    check_pinned(there, pinned, option="--out")
    return there["results"]


def _has(rows: list[dict], seed: int, cover: float) -> bool:
    return any((row["seed"], row["cover"]) == (seed, cover) for row in rows)


def open_study(options: CloudsOptions, seed: int, mae: MAE | None) -> Study:
    """The images of a seed, and the encoder.

    Raises:
        UsageError: not all bands of the encoder are read, which its decoder needs.
    """
    images = in_full(
        ImageOptions(
            dataset=options.dataset,
            data_dir=options.data_dir,
            encoder=options.encoder,
            seed=seed,
            **{name: getattr(options, name) for name in BANDS},
        )
    )
    encoder = check_sees_patches(images, build_encoder(images))
    encoder.eval()
    if mae is not None and mae.encoder.config != encoder.config:
        raise UsageError(
            f"methods: {DECODED} needs all bands of the encoder and its size, got "
            f"bands={images.bands}, image_size={images.image_size}"
        )
    splits = {
        split: chosen(dataset_of(images, split), count, seed, encoder)
        for split, count in (("train", options.train), ("test", options.test))
    }
    return Study(splits, encoder, mae, seed, options.batch_size, options.max_missing)


def summary(rows: list[dict]) -> list[dict]:
    """Accuracy's mean and deviation, and mean costs, over the seeds, for each cover and method."""
    cells: dict = {}
    for row in rows:
        cells.setdefault((row["cover"], row["method"]), []).append(row)
    found = []
    for (cover, method), of in cells.items():
        accuracies = [row["test_accuracy"] for row in of]
        found.append(
            {
                "cover": cover,
                "method": method,
                "mean": np.mean(accuracies),
                "deviation": np.std(accuracies),
                "bytes": np.mean([row["bytes_per_image"] for row in of]),
                "cpu_ms": np.mean([row["cpu_ms_per_image"] for row in of]),
            }
        )
    return sorted(found, key=lambda row: row["cover"])


def draw(rows: list[dict], methods: Sequence[str], out: pathlib.Path, title: str) -> None:
    """Accuracy against the share of clouds, a line for each method."""
    figure = Figure(figsize=(5, 3.6), layout="tight")
    axis = figure.subplots()
    cells = summary(rows)
    clear = [row for row in cells if row["method"] == CLEAR]
    for method in methods:
        line = clear + [row for row in cells if row["method"] == method]
        covers, means, deviations = (
            [100 * row[name] for row in line] for name in ("cover", "mean", "deviation")
        )
        axis.errorbar(covers, means, deviations, label=method, marker="o", capsize=3)
    axis.set_xlabel("pixels under clouds (%)")
    axis.set_ylabel("test accuracy (%)")
    axis.set_title(title)
    axis.legend()
    png.write(figure, out)


if __name__ == "__main__":
    run(main, CloudsOptions, __doc__ or "")
