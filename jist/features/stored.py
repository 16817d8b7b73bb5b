"""CLS features on disk, as `jist.features.extract` writes them."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt32

from jist import store

CHUNK = 1024  # rows; the unit in which work is lost by a kill


@dataclasses.dataclass(frozen=True)
class Features:
    """CLS features, without the images that were skipped.

    Attributes:
        label: [N] int32.
        example_id: [N] uint32.
        attributes: what the store says of itself.
        read_cls: gives `cls`; called when it is first asked for, so that extraction alone needs
            no memory that grows with the data set.
    """

    label: Int[np.ndarray, " examples"]
    example_id: UInt32[np.ndarray, " examples"]
    attributes: dict[str, Any]
    read_cls: Callable[[], Float[np.ndarray, "examples dim"]]

    @functools.cached_property
    def cls(self) -> Float[np.ndarray, "examples dim"]:
        """The CLS vectors [N, D] float32, in memory from their first use on."""
        return self.read_cls()


def load(path: str | os.PathLike) -> Features:
    """Opens a feature store; its CLS vectors are read, whole, when they are first used.

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
    label = _read(path, "label")
    there = label >= 0
    return Features(
        label=label[there],
        example_id=_read(path, "example_id")[there],
        attributes=attributes,
        read_cls=functools.partial(_read_cls, path.absolute(), there),
    )


def _read(path: pathlib.Path, name: str) -> np.ndarray:
    return np.asarray(store.open_array(path, name).read().result())


def _read_cls(path: pathlib.Path, there: np.ndarray) -> np.ndarray:
    cls = _read(path, "cls")
    return cls if there.all() else cls[there]  # as a rule nothing is skipped, nor copied
