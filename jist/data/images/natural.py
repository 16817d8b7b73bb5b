"""Natural masks: images that arrive with missing regions (Kariotakis et al., CPAL 2024, §2.1)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, UInt8

from jist.data.dataset import Dataset
from jist.data.images.clouds import cloud_mask
from jist.data.images.decoding import Pixels
from jist.data.images.resizing import resize, resize_missing
from jist.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class NaturalMasks:
    """How missing regions are found, and how much of a visible patch they may take.

    Attributes:
        max_missing: share of a visible patch that may be missing, in [0, 1).
        no_data: the value that stands for a missing pixel in every channel, if there is one: in
            [0, 255] or, where images are 16-bit grey, in [0, 65535].
        clouds: share of every image that simulated clouds hide, beside what is missing; None for
            no clouds.
        seed: seed of the clouds.
        fill: a missing pixel in a visible patch, channel by channel; by default ImageNet's mean
            colour.

    Raises:
        ValueError: a share or a value outside its range.
    """

    max_missing: float = 0.0
    no_data: int | None = None
    clouds: float | None = None
    seed: int = 0
    fill: tuple[int, ...] = (124, 116, 104)

    def __post_init__(self) -> None:
        if not 0 <= self.max_missing < 1:
            raise ValueError(f"max_missing must lie in [0, 1), got {self.max_missing}")
        if self.clouds is not None and not 0 < self.clouds < 1:
            raise ValueError(f"clouds (--simulate-clouds) must lie in (0, 1), got {self.clouds}")
        if self.no_data is not None and not 0 <= self.no_data <= 65535:
            raise ValueError(
                "no_data must lie in [0, 255], or in [0, 65535] for 16-bit grey images, got "
                f"{self.no_data}"
            )

    @property
    def name(self) -> str:
        """The name of these masks in results."""
        return "natural" if self.clouds is None else f"simulated clouds {self.clouds:g}"

    @property
    def takes_more(self) -> bool:
        """Whether pixels count as missing beyond those that the image itself marks."""
        return self.no_data is not None or self.clouds is not None

    def read(
        self, dataset: Dataset, index: int, size: int, preprocessing: Preprocessing
    ) -> tuple[UInt8[np.ndarray, "{size} {size} channels"], Bool[np.ndarray, "{size} {size}"]]:
        """One image [S, S, C] and which of its pixels are missing [S, S], resized alike.

        The pixels do not depend on what lies in the missing regions.

        Raises:
            UnreadableImageError: it cannot be decoded.
        """
        example_id = int(dataset.example_ids[index])
        found = dataset.open_with_missing(index, self.no_data)
        return self.resize(*found, example_id, size, preprocessing)

    def resize(
        self,
        image: Pixels,
        missing: Bool[np.ndarray, "height width"],
        example_id: int,
        size: int,
        preprocessing: Preprocessing,
    ) -> tuple[UInt8[np.ndarray, "{size} {size} channels"], Bool[np.ndarray, "{size} {size}"]]:
        """The same, of an image that has been read.

        Raises:
            ValueError: it has another number of channels than `fill`.
        """
        pixels = resize(image, size, preprocessing)
        if pixels.shape[2] != len(self.fill):
            raise ValueError(
                f"fill must have a value for each of {pixels.shape[2]} channels, got {self.fill}"
            )
        missing = resize_missing(missing, size, preprocessing)
        if self.clouds is not None:
            missing = missing | cloud_mask(self.seed, example_id, size, self.clouds)
        return np.where(missing[:, :, None], np.array(self.fill, np.uint8), pixels), missing
