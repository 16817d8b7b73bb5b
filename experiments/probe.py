r"""Evaluates an encoder's features: a linear probe and the papers' MLP, at several masking ratios.

    python -m experiments.probe --dataset folder:data/cifar10 --encoder runs/pretrain/encoder \
        --ratios 0 0.25 0.5 0.75 0.9 --seeds 0 1 2 --run-dir runs/probe

The linear probe is a linear map behind a batch normalisation without an affine part, as in He et
al. (arXiv 2111.06377, Appendix A.1), trained by Adam; the MLP and its training are those of
Kariotakis et al. (CPAL 2024, Table 3). Both are trained on the CLS vector, the feature; a second
linear probe sees the mean of the patch tokens, because in pre-training CLS learns through attention
only and may lag behind. A seed decides masks, initialisation and order. The same command resumes
where it stopped, and with more `--epochs` extends the trainings. Expected on 2 CPU cores for 60,000
small images and a nano encoder: about four minutes for each seed and ratio.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, UInt8, UInt32
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments.command.cli import run
from experiments.command.errors import UsageError
from experiments.command.options import BANDS, HeadOptions, ImageOptions, StrategyOptions
from experiments.runs.bands import in_full
from experiments.runs.directory import RunDirectory
from experiments.runs.heads import TASK, build_strategy
from experiments.runs.images import (
    RANDOM_ENCODERS,
    build_encoder,
    dataset_of,
    progress_bar,
)
from experiments.runs.outcome import chosen
from experiments.runs.probing import PROBES, ProbeOptions, mean_and_deviation
from experiments.runs.remarks import say_once
from jist import trainer
from jist.data import Dataset, batches, splits_of
from jist.features import encode_batches, exact_products, in_parts, place_weights
from jist.masking import FixedMask
from jist.metrics import MetricsLog
from jist.models import LinearProbe, MAEEncoder, digest
from jist.strategies import Centralized, Strategy


def main(options: ProbeOptions) -> None:
    """Encodes, trains heads and reports."""
    images = in_full(
        ImageOptions(
            dataset=options.dataset,
            data_dir=options.data_dir,
            encoder=options.encoder,
            **{name: getattr(options, name) for name in BANDS},
        )
    )
    read = {name: getattr(images, name) for name in BANDS}
    config = dataclasses.asdict(dataclasses.replace(options, **read))
    for name in ("run_dir", "debug", "data_dir", "encode_batch"):
        del config[name]
    config = {n: of for n, of in config.items() if of is not None or n not in BANDS}
    splits = splits_of(options.dataset, data_dir=options.data_dir)
    if "validation" in splits:
        say_once(f"{options.dataset} brings a validation split: it chooses the best epoch")
        config["own_validation"] = True
    results = RunDirectory(
        options.run_dir,
        {"experiment": "probe"} | config,
        growing=("epochs",),
        data_dir=options.data_dir,
    )
    datasets = {split: dataset_of(images, split) for split in splits}
    with progress_bar() as progress:
        for seed in options.seeds:
            encoder = build_encoder(dataclasses.replace(images, seed=seed))
            if not isinstance(encoder, MAEEncoder):
                raise UsageError(
                    f"encoder must have patch tokens, got {options.encoder}, a "
                    f"{type(encoder).__name__}"
                )
            if options.encoder not in RANDOM_ENCODERS:  # a random encoder differs with every seed
                results.pin({"encoder_sha256": digest(encoder)})
            for ratio in options.ratios:
                probe(results, datasets, encoder, ratio, seed, options, progress)
    print_table(list(results.results().values()))


def probe(
    run_directory: RunDirectory,
    datasets: dict[str, Dataset],
    encoder: MAEEncoder,
    ratio: float,
    seed: int,
    options: ProbeOptions,
    progress: Progress,
) -> None:
    """Trains the heads at one ratio and seed that have not been trained yet."""
    wanted = [
        (kind, head, f"{head}-{kind.replace(' ', '-')}-ratio-{ratio:g}-seed-{seed}")
        for head, kind in PROBES
    ]
    epochs = {name: result["epochs"] for name, result in run_directory.results().items()}
    todo = [item for item in wanted if epochs.get(item[2], 0) < options.epochs]
    if not todo:
        return
    mask = FixedMask(encoder.config.patches, ratio, seed)
    encoded = {
        split: encode(encoder, dataset, mask, options.encode_batch, progress)
        for split, dataset in datasets.items()
    }
    classes = len(datasets["train"].class_names)
    for kind, head, name in todo:
        examples = {
            split: {"x": jax.device_put(encoded[split][kind]), "y": jax.device_put(dataset.labels)}
            for split, dataset in datasets.items()
        }
        strategy = build_head(head, encoder.config.dim, classes, seed)
        with MetricsLog(run_directory.path, name, {"ratio": ratio, "seed": seed}) as log:
            history = trainer.train(
                strategy,
                examples["train"],
                examples["test"],
                epochs=options.epochs,
                batch_size=options.batch_size,
                seed=seed,
                checkpoints=run_directory.path / "checkpoints" / name,
                log=log,
                validation_examples=examples.get("validation"),
                progress=progress,
                description=f"{head} on {kind}, ratio {ratio:g}, seed {seed}",
            )
        result: dict[str, Any] = {
            "run": name,
            "dataset": options.dataset,
            "encoder": options.encoder,
            "features": kind,
            "head": head,
            "mask": "fixed",
            "ratio": ratio,
            "seed": seed,
            "epochs": options.epochs,
            "validation_examples": len(datasets.get("validation", ())),
            **chosen(history, TASK),
        }
        run_directory.add_result(result, list(datasets["train"].class_names))


def build_head(head: str, inputs: int, classes: int, seed: int) -> Strategy:
    """The untrained linear probe or MLP, and its centralised training."""
    if head == "mlp":
        how = StrategyOptions(strategy="centralized", workers=1)
        return build_strategy(inputs, classes, HeadOptions(), how, seed, devices=1)
    linear = LinearProbe(inputs, classes, rngs=nnx.Rngs(seed))
    return Centralized(linear, optax.adam(1e-3), local_steps=50)


def encode(
    encoder: MAEEncoder, dataset: Dataset, mask: FixedMask, batch_size: int, progress: Progress
) -> dict[str, Float[np.ndarray, "examples dim"]]:
    """CLS vectors and means of the patch tokens of a data set, in one pass."""
    bar = progress.add_task(f"{dataset.split} images, ratio {mask.ratio:g}", total=len(dataset))
    images = batches(
        dataset,
        image_size=encoder.config.image_size,
        preprocessing=encoder.preprocessing,
        batch_size=batch_size,
    )
    graphdef, weights = place_weights(encoder, batch_size)
    of_batch = functools.partial(_encode, graphdef, mask, weights)
    found = []
    for batch, features in encode_batches(images, of_batch, batch_size):
        found.append(features)
        progress.update(bar, advance=len(batch.labels))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    graphdef: Any,
    mask: FixedMask,
    weights: Any,
    images: UInt8[Array, "batch side side 3"],
    example_ids: UInt32[Array, " batch"],
) -> dict[str, Float[Array, "batch dim"]]:
    encoder = nnx.merge(graphdef, weights)

    def features(rows: tuple[Array, Array]) -> dict[str, Array]:
        images, keep = rows
        tokens = encoder(encoder.preprocessing.normalize(images), keep).astype(jnp.float32)
        return {"cls": tokens[:, 0], "patch mean": tokens[:, 1:].mean(axis=1)}

    keep = mask(example_ids)
    with exact_products(encoder.dtype):
        return in_parts(features, (images, keep), tokens=1 + keep.shape[1])


def print_table(results: list[dict[str, Any]]) -> None:
    """One row per ratio: mean accuracy and deviation over the seeds, of the last epoch."""
    table = Table(title="Test accuracy, last epoch, in %", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("patches\nremoved", justify="right")
    for head, kind in PROBES:
        table.add_column(f"{head}\non {kind}", justify="right")
    for ratio in sorted({result["ratio"] for result in results}):
        table.add_row(
            f"{ratio:.0%}",
            *(mean_and_deviation(results, ratio, kind, head) for head, kind in PROBES),
        )
    Console().print(table)


if __name__ == "__main__":
    run(main, ProbeOptions, __doc__ or "")
