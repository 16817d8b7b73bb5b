"""JPEG files to CLS vectors on disk at masking ratio 0.75, beside a PyTorch DataLoader and ViTMAE.

jist's variant is `jist.features.extract` as users call it, PyTorch's decodes and resizes by the
same Pillow calls in as many processes as there are cores or in none, whichever was faster in a
trial, encodes as in the benchmark `encode`, eager, and writes with `np.save`. The features must
agree. A third variant encodes the same batches, decoded before: by what jist's pipeline takes
longer, its encoder is idle, or shares the processor with the decoding.
"""

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.bench.encode import (
    EAGER,
    QUICK,
    check,
    image_flops,
    jit_encode,
    of_type,
    random_encoder,
)
from experiments.bench.hardware import has_torch
from experiments.bench.timing import JIST, Case, Variant, seconds, spread
from jist.data import Dataset, batches, load_dataset
from jist.features import extract
from jist.masking import FixedMask
from jist.models import MAEEncoder, ViTConfig
from jist.placement import available_cores, split_batch

RATIO = 0.75
# Images, images in a batch, compute type.
SIZES = {"cpu": (256, 32, "float32"), "gpu": (8192, 512, "bfloat16")}
FILE_SIDE = 256
QUICK_SIZES, QUICK_SIDE = (8, 3, "float32"), 40
CLASSES = 4
DECODED = "jist, images decoded"
# Processes that decode for PyTorch.
WORKERS, QUICK_WORKERS = (0, available_cores()), (0,)

Run = Callable[[], np.ndarray]


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """One case, on synthetic photographs.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take few small images and a small encoder.
    """
    count, batch, dtype = QUICK_SIZES if quick else SIZES[device]
    encoder = random_encoder(QUICK if quick else ViTConfig.base())
    workers = QUICK_WORKERS if quick else WORKERS
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch, "images")
        write_images(folder, count, QUICK_SIDE if quick else FILE_SIDE)
        dataset = load_dataset(f"folder:{folder}", "train")
        yield case(encoder, dataset, device, batch, dtype, scratch, workers)


def case(
    encoder: MAEEncoder,
    dataset: Dataset,
    device: str,
    batch: int,
    dtype: str,
    scratch: str,
    workers: Sequence[int],
) -> Case:
    """The variants, after they have shown that they do the same work.

    Args:
        encoder: of float32.
        dataset: image files.
        device: "cpu" or "gpu".
        batch: images encoded at a time.
        dtype: compute type.
        scratch: directory for the features.
        workers: numbers of processes that decode for PyTorch; the fastest is timed.

    Raises:
        RuntimeError: the features differ.
    """
    mask = FixedMask(encoder.config.patches, RATIO)
    ours = of_type(encoder, dtype)
    runs: dict[str, Run] = {
        JIST: lambda: _extract(ours, dataset, mask, batch, scratch),
        DECODED: _encode_decoded(ours, dataset, mask, batch),
    }
    facts: dict[str, Any] = {"files": len(dataset), "batch": batch}
    outputs: dict[str, np.ndarray] = {}
    if has_torch():
        trials = _torch_runs(encoder, dataset, mask, device, batch, dtype, scratch, workers)
        runs |= {f"{EAGER}, workers: {count}": run for count, run in trials.items()}
    first = {
        variant: seconds(lambda variant=variant, run=run: outputs.update({variant: run()}))
        for variant, run in runs.items()
    }
    facts["difference"] = {
        variant: check(variant, cls, outputs[JIST], dtype)
        for variant, cls in outputs.items()
        if variant != JIST
    }
    theirs = {variant: seconds(run) for variant, run in runs.items() if variant.startswith(EAGER)}
    facts["seconds_of_a_trial"] = theirs
    chosen = [JIST, DECODED, *sorted(theirs, key=theirs.__getitem__)[:1]]
    return Case(
        f"JPEG files, ratio {RATIO:g}, {dtype}",
        "images/s",
        {
            variant: Variant(runs[variant], len(dataset), dtype=dtype, first_run_s=first[variant])
            for variant in chosen
        },
        flops=image_flops(encoder.config, mask.kept),
        facts=facts,
        dtype=dtype,
        conclude=idle_share,
    )


def idle_share(taken: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The share of the pipeline's time that encoding the decoded images would not have taken."""
    pairs = zip(taken[JIST], taken[DECODED], strict=True)
    return {"idle_share": spread([1 - alone / whole for whole, alone in pairs])}


def write_images(folder: pathlib.Path, count: int, side: int) -> None:
    """Writes a folder data set: smooth colours with some noise, about as many bytes as photographs.

    Args:
        folder: a new directory.
        count: training images; a folder data set wants test images too, so each class gets one.
        side: pixels of a side.
    """
    generator = np.random.default_rng(0)
    for split, images in (("train", count), ("test", CLASSES)):
        for i in range(images):
            colours = generator.integers(0, 256, (8, 8, 3), np.uint8)
            smooth = Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)
            pixels = np.asarray(smooth) + generator.normal(0, 6, (side, side, 3))
            file = folder / split / f"class{i % CLASSES}" / f"{i:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)


def _extract(
    encoder: MAEEncoder, dataset: Dataset, mask: FixedMask, batch: int, scratch: str
) -> np.ndarray:
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        return extract(encoder, dataset, out, keep_for=mask, batch_size=batch).cls


def _encode_decoded(encoder: MAEEncoder, dataset: Dataset, mask: FixedMask, batch: int) -> Run:
    config, preprocessing = encoder.config, encoder.preprocessing
    encode = jit_encode(encoder, batch)
    decoded = []
    for found in batches(
        dataset, image_size=config.image_size, preprocessing=preprocessing, batch_size=batch
    ):
        padding = batch - len(found.labels)  # as extraction pads
        images = np.pad(found.images, [(0, padding), (0, 0), (0, 0), (0, 0)])
        ids = np.pad(found.example_ids, (0, padding))
        decoded.append((images, np.asarray(mask(ids))))

    def run() -> np.ndarray:
        cls = [encode(*jax.device_put(part, split_batch(batch))) for part in decoded]
        return np.concatenate([np.asarray(part) for part in cls])[: len(dataset)]

    return run


def _torch_runs(
    encoder: MAEEncoder,
    dataset: Dataset,
    mask: FixedMask,
    device: str,
    batch: int,
    dtype: str,
    scratch: str,
    workers: Sequence[int],
) -> dict[int, Run]:
    """PyTorch's variant by the number of processes that decode."""
    import torch

    from experiments.bench import torch_encoder, torch_files

    config = encoder.config
    encode = torch_encoder.make_encode(
        encoder, mask.kept, dtype=dtype, device=device, compiled=False
    )
    paths = [dataset.locate(i) for i in range(len(dataset))]
    files = torch_files.Files(paths, config.image_size, encoder.preprocessing.interpolation)
    keep = np.asarray(mask(dataset.example_ids))
    noise = torch.from_numpy(torch_encoder.noise(keep, config.patches))
    noise = noise.to(torch_encoder.place(device))
    return {
        count: torch_files.make_extract(
            encode,
            files,
            noise,
            batch_size=batch,
            workers=count,
            out=os.path.join(scratch, f"{count}.npy"),
        )
        for count in workers
    }
