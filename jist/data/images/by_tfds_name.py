"""Any data set of TFDS whose examples are an image and its class: `tfds:NAME[/CONFIG]`."""

import dataclasses
import os

import numpy as np

from jist.data.errors import DataError
from jist.data.holdout import held_out
from jist.data.images.prepared import Prepared, load_prepared, open_builder


def load_tfds(
    name: str, split: str, *, data_dir: str | os.PathLike | None, seed: int, test_share: float
) -> Prepared:
    """One split of a data set that TFDS has prepared.

    Its test split is TFDS's "test", or "validation" where there is none; where there is neither, a
    share of every class of "train", drawn from the seed.

    Args:
        name: in TFDS, perhaps with `/CONFIG`.
        split: "train", "test" or, if it is among `tfds_splits`, "validation".
        data_dir: where TFDS keeps prepared data sets; by default its own default.
        seed: decides the split of a data set that brings none.
        test_share: share of every class held out for testing in that case.

    Raises:
        ValueError: no name, or a share outside (0, 1).
        DataError: as `load_prepared`; or there is no split "train".
    """
    splits = tfds_splits(name, data_dir=data_dir)
    found = load_prepared(name, splits.get(split, "train"), split=split, data_dir=data_dir)
    remarks = ()
    if splits.get("test") == "validation":
        remarks = (f"tfds:{name}: without a split test, validation is the test split",)
    if "test" not in splits:
        held = held_out(found.keys, found.labels, found.class_names, share=test_share, seed=seed)
        rows = np.flatnonzero(held if split == "test" else ~held)
        found = dataclasses.replace(
            found, keys=tuple(found.keys[row] for row in rows), labels=found.labels[rows], rows=rows
        )
    return dataclasses.replace(found, name=f"tfds:{name}", remarks=remarks)


def tfds_splits(name: str, *, data_dir: str | os.PathLike | None) -> dict[str, str]:
    """The splits of a data set: ours -> TFDS's.

    Raises:
        ValueError: the name is empty.
        DataError: TFDS is not installed, knows no such data set, or has prepared none with "train".
    """
    if not name.strip("/"):
        raise ValueError(f"tfds:NAME needs the name of a data set, 'tfds:{name}' has none")
    there = [*open_builder(name, data_dir)[1].info.splits]
    if not there:  # not prepared; the message says how
        load_prepared(name, "train", split="train", data_dir=data_dir)
    if "train" not in there:
        raise DataError(f"tfds:{name} has no split train; it has {', '.join(there)}")
    found = {split: split for split in ("train", "validation", "test") if split in there}
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found
