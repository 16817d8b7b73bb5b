"""Some of the images of a data set."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from jist.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subset(Dataset):
    """Some images of a data set, with their keys; made by `subset`.

    Attributes:
        whole: the data set.
        rows: where they are in it [N].
    """

    whole: Dataset
    rows: Int[np.ndarray, " examples"]

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.whole.channels

    def open(self, index: int) -> Image.Image:
        """As of the data set."""
        return self.whole.open(int(self.rows[index]))

    def decode(self, index: int) -> Image.Image | UInt8[np.ndarray, "height width channels"]:
        """As of the data set."""
        return self.whole.decode(int(self.rows[index]))

    def open_with_missing(
        self, index: int, no_data: int | None = None
    ) -> tuple[
        Image.Image | UInt8[np.ndarray, "height width channels"], Bool[np.ndarray, "height width"]
    ]:
        """As of the data set."""
        return self.whole.open_with_missing(int(self.rows[index]), no_data)

    def locate(self, index: int) -> str:
        """As of the data set."""
        return self.whole.locate(int(self.rows[index]))


def subset(dataset: Dataset, which: Bool[np.ndarray, " examples"]) -> Subset:
    """The images of a data set where `which`, bool [N], is true, in their order."""
    rows = np.flatnonzero(which)
    return Subset(
        name=dataset.name,
        split=dataset.split,
        class_names=dataset.class_names,
        keys=tuple(dataset.keys[row] for row in rows),
        labels=dataset.labels[rows],
        remarks=dataset.remarks,
        whole=dataset,
        rows=rows,
    )
