"""Image files to CLS vectors on disk in PyTorch: a DataLoader that decodes while others encode.

Its processes import this module, so it imports neither JAX nor jist. They keep the memory that they
free, as the process does in which jist runs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.command import malloc


class Files(Dataset):
    """Images as uint8 [S, S, 3]: the shorter side is scaled to S and the central square cut out.

    Args:
        paths: the files.
        size: pixels S of a side.
        interpolation: name of the Pillow filter, as "bicubic".
    """

    def __init__(self, paths: Sequence[str], size: int, interpolation: str):
        self.paths, self.size = list(paths), size
        self.filter = Image.Resampling[interpolation.upper()]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB")
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        box = (left, top, left + short, top + short)
        return torch.from_numpy(np.array(image.resize((self.size, self.size), self.filter, box)))


def make_extract(
    encode: Callable[[Tensor, Tensor], Tensor],
    files: Files,
    noise: Tensor,
    *,
    batch_size: int,
    workers: int,
    out: str,
) -> Callable[[], np.ndarray]:
    """Writes the CLS vectors of all files, and returns them [N, D].

    Args:
        encode: CLS vectors of images and noise, as `torch_encoder.make_encode`.
        files: the images.
        noise: of every image [N, L], on the device.
        batch_size: images encoded at a time.
        workers: processes that decode, started once; with none the process itself does.
        out: the `.npy` file.
    """
    loader = DataLoader(
        files,
        batch_size,
        num_workers=workers,
        pin_memory=noise.is_cuda,
        persistent_workers=workers > 0,
        # A fork would copy JAX's threads in the middle of whatever they hold.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start,
    )

    def extract() -> np.ndarray:
        rows, start = [], 0
        for images in loader:
            shown = noise[start : start + len(images)]
            rows.append(encode(images.to(noise.device, non_blocking=True), shown))
            start += len(images)
        cls = torch.cat(rows).cpu().numpy()
        np.save(out, cls)
        return cls

    return extract


def _start(worker: int) -> None:
    """What a process that decodes does first."""
    malloc.keep_freed()
