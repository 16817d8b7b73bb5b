"""Images that are decoded when they are used: for data sets larger than memory."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from jist.data.dataset import Dataset
from jist.data.images.pipeline import batches
from jist.data.on_disk import Streamed
from jist.models.preprocessing import Preprocessing

_PIECE = 256  # images that are put together at once: enough for all threads


@dataclasses.dataclass(frozen=True, eq=False)
class Undecoded(Streamed):
    """The images of a data set, resized, as uint8 [N, S, S, C].

    Attributes:
        dataset: where they come from.
        image_size: pixels S of a side.
        preprocessing: how they are resized.
    """

    dataset: Dataset
    image_size: int
    preprocessing: Preprocessing

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, S, S, C]."""
        side = self.image_size
        return len(self.dataset), side, side, self.dataset.channels

    @property
    def dtype(self) -> np.dtype:
        """One byte of every channel."""
        return np.dtype(np.uint8)

    def __getitem__(
        self, which: slice | np.ndarray
    ) -> UInt8[np.ndarray, "some side side channels"]:
        """Decodes some images, on all cores.

        Raises:
            UnreadableImageError: one cannot be decoded.
        """
        rows = np.arange(len(self.dataset))[which]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        found = batches(
            self.dataset,
            image_size=self.image_size,
            preprocessing=self.preprocessing,
            batch_size=_PIECE,
            rows=rows,
        )
        for number, part in enumerate(found):
            images[number * _PIECE :][: len(part.images)] = part.images
        return images
