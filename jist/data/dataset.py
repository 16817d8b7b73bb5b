"""What all data sets have in common."""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt32
from PIL import Image

from jist.data.errors import DataError, UnreadableImageError


def example_id(key: str) -> int:
    """The stable id of an example: the first 4 bytes of the BLAKE2b hash of its key.

    Two among N examples share an id with probability about N² / 2³³ (a third for 50,000); they
    then share what is drawn by id (masks, clouds, a place in the validation split), which does no
    harm.
    """
    # A file name that is not UTF-8 reaches Python with surrogates.
    encoded = key.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=4).digest(), "little")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Labelled examples, known by their keys.

    Attributes:
        name: the name given to `load_dataset`.
        split: "train" or "test"; of data that bring one, "validation".
        class_names: the names of the C classes; labels index them.
        keys: unique names of the examples in the data set [N]; adding examples changes no key.
        labels: [N] int32, in [0, C).
        remarks: what its owner should know of how the data were read, in lines; no part of them.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    labels: Int[np.ndarray, " examples"]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @functools.cached_property
    def example_ids(self) -> UInt32[np.ndarray, " examples"]:
        """The stable ids [N], as `example_id` of the keys."""
        return np.array([example_id(key) for key in self.keys], np.uint32)

    def describe(self) -> dict[str, Any]:
        """Description of the data, as JSON, for derived files; equal for equal examples."""
        examples = hashlib.sha256(self.example_ids.tobytes() + self.labels.tobytes())
        return {
            "dataset": self.name,
            "split": self.split,
            "class_names": list(self.class_names),
            "examples": len(self),
            "examples_sha256": examples.hexdigest(),
        }

    def locate(self, index: int) -> str:
        """Where an example comes from, for error messages."""
        return self.keys[index]


def check_learnable(train: Examples, others: Sequence[Examples]) -> None:
    """Refuses training examples that teach no choice between the classes that there are.

    Args:
        train: the training examples.
        others: those to test or to validate on.

    Raises:
        DataError: a class occurs among the others alone, or there is one class.
    """
    learned = set(np.unique(train.labels).tolist())
    for other in others:
        for label in sorted(set(np.unique(other.labels).tolist()) - learned):
            raise DataError(
                f"{train.name}: class {train.class_names[label]!r} occurs in the split "
                f"{other.split!r} and has no example to train on"
            )
    if len(learned) == 1:
        (label,) = learned
        raise DataError(
            f"{train.name} holds only one class ({train.class_names[label]}); a classifier needs "
            "two"
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset(Examples, abc.ABC):
    """Labelled images, decoded one at a time."""

    @property
    def channels(self) -> int:
        """Channels C of every image: three colours, or as many bands as are read."""
        return 3

    @abc.abstractmethod
    def open(self, index: int) -> Image.Image:
        """Decodes an image to RGB, to be shown; safe to call from several threads.

        Raises:
            UnreadableImageError: it cannot be decoded; the message says which.
        """

    def decode(self, index: int) -> Image.Image | UInt8[np.ndarray, "height width channels"]:
        """An image as it is encoded: as `open`, where it has no other bands than colours."""
        return self.open(index)

    def open_with_missing(
        self, index: int, no_data: int | None = None
    ) -> tuple[
        Image.Image | UInt8[np.ndarray, "height width channels"], Bool[np.ndarray, "height width"]
    ]:
        """Decodes an image, as `decode`, and says which of its pixels are missing.

        Args:
            index: which image.
            no_data: the value that stands for a missing pixel, in every channel, if there is one.

        Raises:
            UnreadableImageError: it cannot be decoded, or cannot hold `no_data`; the message says
                which.
        """
        image = self.open(index)
        if no_data is None:
            return image, np.zeros((image.height, image.width), bool)
        if not 0 <= no_data <= 255:
            raise UnreadableImageError(
                f"cannot read image {self.locate(index)}: no_data={no_data} cannot occur in it: it "
                "holds 0 to 255"
            )
        return image, (np.asarray(image) == no_data).all(axis=-1)
