"""Extraction of ever more images: time and peak memory, each size in a process of its own.

On Linux, where /proc holds the memory in use. Such a process takes cores and memory as every script
does (`experiments.command.cpu`). Images are drawn when they are opened, as a function of their
number, so nothing of them stays in memory or comes from a disk. The encoder has the width of the
shipped one, 192, and a single block: what is measured is all that surrounds an encoder.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from flax import nnx
from PIL import Image

from experiments.bench.timing import spread
from experiments.command.cpu import keep_freed_memory, make_cores_devices
from experiments.scaling.clock import CLOCKS, linear_fit, timed
from jist import features
from jist.data import Dataset
from jist.masking import FixedMask
from jist.models import MAEEncoder, ViTConfig

SIZES = (1_000, 5_000, 25_000, 100_000, 200_000)
CONFIG = ViTConfig(image_size=32, patch_size=8, dim=192, depth=1, heads=3, mlp_dim=192)
RATIO = 0.75
WARM_UP = 512  # images
NOISE = np.random.default_rng(0).bytes(1 << 16)
PIXELS = CONFIG.image_size**2 * 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Drawn(Dataset):
    """Images drawn from their number."""

    def open(self, index: int) -> Image.Image:
        """A stretch of noise."""
        start = index % (len(NOISE) - PIXELS)
        side = CONFIG.image_size
        return Image.frombytes("RGB", (side, side), NOISE[start : start + PIXELS])


def drawn(images: int) -> Drawn:
    """A data set of so many images."""
    return Drawn(
        name="drawn",
        split="train",
        class_names=("even", "odd"),
        keys=tuple(f"drawn/{index}" for index in range(images)),
        labels=np.arange(images, dtype=np.int32) % 2,
    )


def extract_once(images: int, device: str) -> dict[str, float]:
    """Extracts in this process; compiled before, on other images.

    Returns:
        `seconds`; `warm_bytes` and `peak_bytes`, the peak of the resident memory before and after.
    """
    encoder = MAEEncoder(CONFIG, rngs=nnx.Rngs(0))
    masks = FixedMask(CONFIG.patches, RATIO, seed=0)
    with tempfile.TemporaryDirectory() as directory:
        features.extract(encoder, drawn(WARM_UP), f"{directory}/warm", keep_for=masks)
        warm = peak_memory()
        dataset = drawn(images)
        start = CLOCKS[device]()
        store = features.extract(encoder, dataset, f"{directory}/features", keep_for=masks)
        seconds = CLOCKS[device]() - start
        peak = peak_memory()
        if len(store.label) != images:
            raise RuntimeError(f"{images} images gave {len(store.label)} features")
    return {"seconds": seconds, "warm_bytes": warm, "peak_bytes": peak}


def peak_memory() -> int:
    """The most bytes that were ever resident in this process.

    From /proc, so on Linux alone, because `getrusage` of a child begins with the memory of the
    process it was forked from.
    """
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measure(repeats: int, device: str, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Extracts every size `repeats` times, in turns, each time in a new process."""
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            runs[size].append(_in_a_process(size, device))
    points = [
        {
            "images": size,
            **timed([run["seconds"] for run in found], size),
            "warm_bytes": spread([run["warm_bytes"] for run in found]),
            "peak_bytes": spread([run["peak_bytes"] for run in found]),
        }
        for size, found in runs.items()
    ]
    seconds = [point["images"] * point["seconds_per_unit"]["median"] for point in points]
    peaks = [point["peak_bytes"]["median"] for point in points]
    return {
        "unit": "image",
        "encoder": dataclasses.asdict(CONFIG),
        "mask_ratio": RATIO,
        "points": points,
        "time_s": linear_fit(sizes, seconds),
        "memory_bytes": linear_fit(sizes, peaks),
    }


def _in_a_process(images: int, device: str) -> dict[str, float]:
    platform = {"cpu": "cpu", "gpu": "cuda"}[device]
    child = subprocess.run(
        [sys.executable, "-m", "experiments.scaling.features", str(images), device],
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"extraction of {images} images failed:\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])


def main(images: int, device: str) -> None:
    """What such a process does."""
    make_cores_devices()
    keep_freed_memory()
    print(json.dumps(extract_once(images, device)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
