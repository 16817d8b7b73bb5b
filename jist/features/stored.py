"""CLS features on disk, as `jist.features.extract` writes them."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt32

from jist import store

CHUNK = 1024  # rows; the unit in which work is lost by a kill


@dataclasses.dataclass(frozen=True)
class Features:
    """CLS features in memory, without the images that were skipped.

    Attributes:
        cls: [N, D] float32.
        label: [N] int32.
        example_id: [N] uint32.
        attributes: what the store says of itself.
    """

    cls: Float[np.ndarray, "examples dim"]
    label: Int[np.ndarray, " examples"]
    example_id: UInt32[np.ndarray, " examples"]
    attributes: dict[str, Any]


def load(path: str | os.PathLike) -> Features:
    """Reads a feature store whole.

    Raises:
        FileNotFoundError: there is none at `path`, or its extraction has not been finished.
    """
    path = pathlib.Path(path)
    if not (path / "zarr.json").is_file():
        raise FileNotFoundError(f"no features at {path}: there is no zarr.json")
    attributes = store.read_attributes(path)
    if "skipped" not in attributes:
        raise FileNotFoundError(
            f"the features at {path} are not finished; run their extraction again to go on"
        )
    read = {
        name: np.asarray(store.open_array(path, name).read().result())
        for name in ("cls", "label", "example_id")
    }
    there = read["label"] >= 0
    return Features(**{name: array[there] for name, array in read.items()}, attributes=attributes)
