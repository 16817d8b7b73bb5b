r"""Clouds over images: their patches dropped, against clouds painted in or filled up.

    python -m experiments.clouds --dataset folder:data/cifar10 --out runs/clouds

The case of Kariotakis et al. (CPAL 2024, §2.1) for masks by nature. Simulated clouds hide a share
of the pixels of training and test images. A frozen encoder then sees: only the patches without any
cloud (`dropped`); all patches, with the clouds painted white (`painted`); all patches, with the
encoder's mean colour in the place of clouds (`mean`), with the colour of the nearest pixel that is
visible (`nearest`), or with what the masked autoencoder itself predicts there (`reconstructed`), if
the encoder's directory holds a decoder. A logistic regression is fitted to the CLS vectors of each.
Images without a patch that is free of clouds are left out of all. The clouds follow the seed, and
so does the choice of images. Expected: half an hour for CIFAR-10 with the defaults on 2 CPU cores.
"""

import dataclasses
import pathlib
import time
import warnings
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from rich.progress import Progress
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from experiments.command.bands import BandOptions
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import BANDS, ImageOptions
from experiments.figures import png
from experiments.runs import hub
from experiments.runs.bands import in_full
from experiments.runs.directory import write_json
from experiments.runs.filling import filled, reconstructed
from experiments.runs.images import build_encoder, check_sees_patches, dataset_of, progress_bar
from jist.data import Dataset, batches
from jist.data.images.clouds import cloud_mask
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep
from jist.models import MAE, MAEEncoder, load_mae

DECODED = "reconstructed"
METHODS = ("dropped", "painted", "mean", "nearest", DECODED)
_cls_vectors = nnx.jit(cls_vectors)


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
    """Any of dropped, painted, mean, nearest and reconstructed; by default all that the encoder can
    do."""
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
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with progress_bar() as progress:
        for seed in options.seeds:
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
                    f"methods: {DECODED} needs all bands of the encoder, got bands={images.bands}"
                )
            splits = {
                split: chosen(dataset_of(images, split), count, seed, encoder)
                for split, count in (("train", options.train), ("test", options.test))
            }
            for cover in (0.0, *options.covers):
                shown = methods if cover else ("clear",)
                rows += measure(
                    splits, encoder, mae, shown, cover, seed, options.batch_size, progress
                )
                noted = {name: str(value) for name, value in dataclasses.asdict(options).items()}
                write_json(options.out / "clouds.json", {"options": noted, "results": rows})
    draw(rows, methods, options.out / "clouds.png", options.dataset)
    for row in summary(rows):
        print(f"{row['cover']:.0%}\t{row['method']}\t{row['mean']:.1%} ± {row['deviation']:.1%}")
    print(f"written: {options.out}/clouds.json, {options.out}/clouds.png")


def methods_of(options: CloudsOptions) -> tuple[tuple[str, ...], MAE | None]:
    """The methods that are asked for, or all that there can be, and the model that reconstructs.

    Raises:
        UsageError: an unknown one, or the encoder's directory holds no decoder.
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
    methods = options.methods or METHODS[: None if has_decoder else -1]
    return methods, load_mae(encoder) if DECODED in methods else None


def chosen(
    dataset: Dataset, count: int, seed: int, encoder: MAEEncoder
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some images of a data set [N, S, S, 3], their labels [N] and ids [N]."""
    order = np.random.default_rng([seed, len(dataset)]).permutation(len(dataset))[:count]
    found = list(
        batches(
            dataset,
            image_size=encoder.config.image_size,
            preprocessing=encoder.preprocessing,
            batch_size=500,
            rows=np.sort(order),
        )
    )
    parts = [(some.images, some.labels, some.example_ids) for some in found]
    images, labels, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    return images, labels, ids


def measure(
    splits: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    encoder: MAEEncoder,
    mae: MAE | None,
    methods: Sequence[str],
    cover: float,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> list[dict]:
    """Test accuracy, seconds of encoding and bytes of each method under clouds; 0 is clear sky."""
    config = encoder.config
    features: dict = {method: {} for method in methods}
    seconds = dict.fromkeys(methods, 0.0)
    bytes_seen, left_out = dict.fromkeys(methods, 0.0), 0
    bar = progress.add_task(f"seed {seed}, {cover:.0%} clouds", total=2 * len(methods))
    for split, (images, labels, ids) in splits.items():
        hidden = np.zeros(images.shape[:3], bool)
        if cover:
            clouds = [cloud_mask(seed, int(i), config.image_size, cover) for i in ids]
            hidden = np.stack(clouds)
        keep = natural_keep(hidden, config.patch_size, 0.0)
        seen = keep[:, 0] != NO_PATCH
        left_out += int((~seen).sum())
        images, hidden, keep = images[seen], hidden[seen], keep[seen]
        for method in methods:
            began = time.perf_counter()
            if method == "dropped":
                cls = ByLength(encoder, batch_size)(images, keep)
                shown = float((keep != NO_PATCH).sum(axis=1).mean())
            else:
                if method == DECODED and mae is not None:
                    given = reconstructed(mae, images, hidden, keep, batch_size)
                else:
                    given = filled(images, hidden, method, encoder.preprocessing.fill)
                cls = encode(encoder, given, batch_size)
                shown = config.patches
            seconds[method] += time.perf_counter() - began
            bytes_seen[method] = shown * config.channels * config.patch_size**2
            features[method][split] = cls, labels[seen]
            progress.advance(bar)
    return [
        {
            "seed": seed,
            "cover": cover,
            "method": method,
            "test_accuracy": probe(features[method]),
            "encoding_seconds": round(seconds[method], 2),
            "bytes_per_image": round(bytes_seen[method], 1),
            "left_out": left_out,
        }
        for method in methods
    ]


def encode(encoder: MAEEncoder, images: np.ndarray, batch_size: int) -> np.ndarray:
    """CLS vectors [N, D] of whole images, in batches of one size."""
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded = np.concatenate(
            [batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), "u1")]
        )
        keep = jnp.tile(jnp.arange(encoder.config.patches), (batch_size, 1))
        cls = _cls_vectors(encoder, jnp.asarray(padded), keep)
        found.append(np.asarray(cls)[: len(batch)])
    return np.concatenate(found)


def probe(features: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """Test accuracy of a logistic regression on standardised features."""
    (x, y), (test_x, test_y) = features["train"], features["test"]
    scale = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are enough to compare
        fitted = LogisticRegression(C=0.1, max_iter=200).fit(scale.transform(x), y)
    return float(fitted.score(scale.transform(test_x), test_y))


def summary(rows: list[dict]) -> list[dict]:
    """Mean and deviation over the seeds, for each cover and method."""
    cells: dict = {}
    for row in rows:
        cells.setdefault((row["cover"], row["method"]), []).append(row["test_accuracy"])
    return [
        {"cover": cover, "method": method, "mean": np.mean(found), "deviation": np.std(found)}
        for (cover, method), found in cells.items()
    ]


def draw(rows: list[dict], methods: Sequence[str], out: pathlib.Path, title: str) -> None:
    """Accuracy against the share of clouds, a line for each method."""
    figure = Figure(figsize=(5, 3.6), layout="tight")
    axis = figure.subplots()
    cells = summary(rows)
    clear = [row for row in cells if row["method"] == "clear"]
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
