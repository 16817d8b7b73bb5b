"""The 1,797 scanned digits that come with scikit-learn: 8 × 8 pixels, 17 grey levels."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jist.data.dataset import Dataset
from jist.data.holdout import held_out


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Digits(Dataset):
    """The digits of one split.

    Attributes:
        scans: [N, 8, 8] uint8.
    """

    scans: UInt8[np.ndarray, "examples 8 8"]

    def open(self, index: int) -> Image.Image:
        """The scan, its grey in all three channels."""
        return Image.fromarray(self.scans[index]).convert("RGB")


def load_digits(split: str, *, seed: int, test_share: float) -> Digits:
    """The digits, split by seed; their keys are `digits/0` to `digits/1796`."""
    scans, labels, class_names = _bundled()
    keys = [f"digits/{index}" for index in range(len(labels))]
    held = held_out(keys, labels, class_names, share=test_share, seed=seed)
    rows = np.flatnonzero(held if split == "test" else ~held)
    return Digits(
        name="digits",
        split=split,
        class_names=class_names,
        keys=tuple(keys[row] for row in rows),
        labels=labels[rows],
        scans=scans[rows],
    )


@functools.cache
def _bundled() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Scans, labels and class names; read once, because every split is made of all."""
    # Takes a second to import, and no other data set needs it.
    from sklearn.datasets import load_digits as load_bundled

    bundled: Any = load_bundled()
    # Levels 0 to 16 become 0 to 255.
    scans = np.round(bundled.images * (255 / 16)).astype(np.uint8)
    names = tuple(str(name) for name in bundled.target_names)
    return scans, bundled.target.astype(np.int32), names
