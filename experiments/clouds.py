r"""Clouds over images: their patches dropped, against clouds painted in or filled up.

    python -m experiments.clouds --dataset folder:data/cifar10 --out runs/clouds

The case of Kariotakis et al. (CPAL 2024, §2.1) for masks by nature. Simulated clouds hide a share
of the pixels of training and test images. A frozen encoder then sees: only the patches without any
cloud (`dropped`); all patches, with the clouds painted white (`painted`); all patches, with the
encoder's mean colour in the place of clouds (`mean`), or with the colour of the nearest pixel that
is visible (`nearest`). A logistic regression is fitted to the CLS vectors of each. Images without a
patch that is free of clouds are left out of all four. The clouds follow the seed, and so does the
choice of images. Expected: half an hour for CIFAR-10 with the defaults on 2 CPU cores.
"""

import dataclasses
import pathlib
import time
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from rich.progress import Progress
from scipy.ndimage import distance_transform_edt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.figures import png
from experiments.runs.directory import write_json
from experiments.runs.images import build_encoder, check_sees_patches, dataset_of, progress_bar
from jist.data import Dataset, batches
from jist.data.images.clouds import cloud_mask
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep
from jist.models import MAEEncoder

METHODS = ("dropped", "painted", "mean", "nearest")
WHITE = 255
_cls_vectors = nnx.jit(cls_vectors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudsOptions(Options):
    """Options of the study."""

    dataset: str = "digits"
    """As for experiments.extract."""
    data_dir: pathlib.Path | None = None
    """As for experiments.extract."""
    encoder: str = "mae-nano-cifar10"
    """As for experiments.extract."""
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
    """Measures all methods, and writes after every cover."""
    if not options.covers or not all(0 < cover < 1 for cover in options.covers):
        raise UsageError(f"covers must lie in (0, 1), got {options.covers}")
    if min(options.train, options.test, options.batch_size) < 1:
        raise UsageError("train, test and batch_size must be at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with progress_bar() as progress:
        for seed in options.seeds:
            images = ImageOptions(
                dataset=options.dataset,
                data_dir=options.data_dir,
                encoder=options.encoder,
                seed=seed,
            )
            encoder = check_sees_patches(images, build_encoder(images))
            encoder.eval()
            splits = {
                split: chosen(dataset_of(images, split), count, seed, encoder)
                for split, count in (("train", options.train), ("test", options.test))
            }
            for cover in (0.0, *options.covers):
                rows += measure(splits, encoder, cover, seed, options.batch_size, progress)
                noted = {name: str(value) for name, value in dataclasses.asdict(options).items()}
                write_json(options.out / "clouds.json", {"options": noted, "results": rows})
    draw(rows, options.out / "clouds.png", options.dataset)
    for row in summary(rows):
        print(f"{row['cover']:.0%}\t{row['method']}\t{row['mean']:.1%} ± {row['deviation']:.1%}")
    print(f"written: {options.out}/clouds.json, {options.out}/clouds.png")


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
    cover: float,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> list[dict]:
    """Test accuracy, seconds of encoding and bytes of each method under clouds; 0 is clear sky."""
    config = encoder.config
    methods = METHODS if cover else ("clear",)
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
                cls = encode(encoder, filled(images, hidden, method, encoder), batch_size)
                shown = config.patches
            seconds[method] += time.perf_counter() - began
            bytes_seen[method] = shown * 3 * config.patch_size**2
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


def filled(images: np.ndarray, hidden: np.ndarray, method: str, encoder: MAEEncoder) -> np.ndarray:
    """Images [N, S, S, 3] with something in the place of their clouds [N, S, S]."""
    if method == "painted":
        return np.where(hidden[..., None], np.uint8(WHITE), images)
    if method == "mean":
        mean = np.round(255 * np.array(encoder.preprocessing.mean)).astype(np.uint8)
        return np.where(hidden[..., None], mean, images)
    if method == "nearest":
        return np.stack([nearest(*pair) for pair in zip(images, hidden, strict=True)])
    return images


def nearest(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """An image [S, S, 3] whose hidden pixels have the colour of the nearest one that is not.

    >>> nearest(np.array([[[1], [2], [9]]]), np.array([[False, True, True]]))[0, :, 0].tolist()
    [1, 1, 1]
    """
    places: Any = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return image[places[0], places[1]]


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


def draw(rows: list[dict], out: pathlib.Path, title: str) -> None:
    """Accuracy against the share of clouds, a line for each method."""
    figure = Figure(figsize=(5, 3.6), layout="tight")
    axis = figure.subplots()
    cells = summary(rows)
    clear = [row for row in cells if row["method"] == "clear"]
    for method in METHODS:
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
