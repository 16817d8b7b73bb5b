"""Vectors in a Zarr store, as `experiments.extract` writes them."""

import json
import pathlib

import numpy as np

from jist import store
from jist.data.errors import DataError
from jist.data.vectors.columns import KEY, Columns, X, Y, find, find_labels, has, listed, short


def read_zarr(path: pathlib.Path, labels: str | None) -> Columns:
    """A Zarr group; examples whose images were left out of it are left out here, too."""
    if not (path / "zarr.json").is_file():
        raise DataError(f"{path} is no Zarr store: there is no zarr.json in it")
    try:
        attributes = store.read_attributes(path)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}/zarr.json is damaged: {short(error)}") from error
    there = tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir()))

    def array(names: tuple[str, ...], wanted: str | None = None) -> np.ndarray | None:
        name = find(path, there, names, wanted)
        return None if name is None else store.read(path, name)

    x = array(X)
    if x is None:
        raise DataError(f"{path} has no array of features, called {listed(X)}; {has(there)}")
    label = find_labels(labels, lambda wanted: array(Y, wanted), there)
    key = array(("example_id", *KEY))
    if isinstance(label, np.ndarray) and "skipped" in attributes and not (label >= 0).all():
        rows = label >= 0
        x, label, key = x[rows], label[rows], None if key is None else key[rows]
    names = attributes.get("class_names")
    return Columns(
        path=path, x=x, label=label, key=key, class_names=None if names is None else tuple(names)
    )
