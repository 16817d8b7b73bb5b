"""CIFAR-10 from TensorFlow Datasets (TFDS)."""

import os

from jist.data.images.prepared import Prepared, load_prepared


def load_cifar10(split: str, *, data_dir: str | os.PathLike | None) -> Prepared:
    """CIFAR-10 as TFDS has prepared it.

    Keys are `cifar10/` and the id that TFDS gives, such as `train_16399`.

    Args:
        split: "train" (50,000 images) or "test" (10,000).
        data_dir: where TFDS keeps prepared data sets; by default its own default.

    Raises:
        DataError: as `load_prepared`.
    """
    return load_prepared(
        "cifar10",
        split,
        split=split,
        data_dir=data_dir,
        key=lambda example, _: f"cifar10/{example['id'].decode()}",
        costs="this downloads 170 MB and uses TensorFlow",
    )
