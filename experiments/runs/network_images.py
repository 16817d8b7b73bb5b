"""Images as the networks take them that are trained end to end."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.images import dataset_of
from experiments.runs.masks import masks_of
from experiments.runs.splits import ClassSplit
from jist.data import Dataset, MaskedImages, NaturalMasks
from jist.data.images.undecoded import Undecoded
from jist.features.visible import NO_PATCH, visible_batches
from jist.models import Classifier, ImageClassifier, Preprocessing
from jist.ragged import take
from jist.tasks import Examples, Task

_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class PixelSplit(ClassSplit):
    """Images with one class each.

    Attributes:
        x: what the network is called with, a tree of arrays [N, ...].
        classes: of each [N].
        ids: stable ids [N].
        noted: what is noted about them.
    """

    x: Any
    classes: np.ndarray
    ids: np.ndarray
    noted: Mapping[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """Data set, class names and, under natural masks, the share that is missing."""
        return dict(self.noted)

    @property
    def label(self) -> np.ndarray:
        """The classes [N]."""
        return self.classes

    @property
    def example_ids(self) -> np.ndarray:
        """Those of the data set [N]."""
        return self.ids

    def examples(self, rows: np.ndarray | None = None) -> Examples:
        """{"x", "y"}: all, or those where `rows`, bool [N], is true."""
        found = {"x": self.x, "y": jax.device_put(self.classes)}
        return found if rows is None else take(found, np.flatnonzero(rows))


@dataclasses.dataclass(frozen=True)
class NetworkInputs:
    """Images for a network that takes their pixels.

    Attributes:
        options: which images.
        model: the network, trained or not.
        task: what it is trained for.
        image_size: side of its images, in pixels.
    """

    options: ImageOptions
    model: Classifier | ImageClassifier
    task: Task
    image_size: int

    @property
    def dim(self) -> int:
        """Side of an image, in pixels."""
        return self.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are resized and normalised."""
        seer = self.model.encoder if isinstance(self.model, Classifier) else self.model
        return seer.preprocessing

    def examples(self, split: str) -> Dataset:
        """The images."""
        return dataset_of(self.options, split)

    def given(self, pixels: np.ndarray, keep: np.ndarray | None) -> Any:
        """What the network is called with.

        Args:
            pixels: images u8 [B, S, S, C] of the network's size.
            keep: their visible patches i32 [B, K], under natural masks padded with -1; None of a
                network that sees images whole.
        """
        if keep is None:
            return jax.device_put(pixels)
        given = {"image": jax.device_put(pixels), "keep": jax.device_put(np.maximum(keep, 0))}
        padded = {"valid": jax.device_put(keep != NO_PATCH)} if self.options.natural else {}
        return given | padded

    def split(
        self, name: str, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> PixelSplit:
        """The images of "train" or "test" under fixed masks, or the natural ones of the options.

        Raises:
            UsageError: masks, or no images, of a network that sees whole images.
        """
        if not self.options.of_images:
            raise UsageError(
                f"dataset={self.options.dataset} holds no images; the network sees some"
            )
        return self.seen(self.examples(name), mask_ratio)

    def seen(self, dataset: Dataset, mask_ratio: float) -> PixelSplit:
        """The same of any images."""
        noted = dataset.describe()
        if isinstance(self.model, Classifier):
            return self._masked(dataset, noted, mask_ratio)
        if mask_ratio or self.options.natural:
            given = f"--mask-ratio {mask_ratio:g}" if mask_ratio else "a natural mask"
            raise UsageError(f"{given} cannot be used: the run's network sees images whole")
        pixels = Undecoded(dataset, self.image_size, self.preprocessing)[:]
        return PixelSplit(self.given(pixels, None), dataset.labels, dataset.example_ids, noted)

    def _masked(self, dataset: Dataset, noted: dict[str, Any], mask_ratio: float) -> PixelSplit:
        assert isinstance(self.model, Classifier)
        encoder = self.model.encoder
        if isinstance(dataset, MaskedImages):
            shape = encoder.config
            dataset.check(shape.image_size, shape.patch_size, encoder.preprocessing)
        masks = masks_of(self.options, mask_ratio, encoder)
        found = [
            (part.images, part.keep, part.labels, part.example_ids, part.missing)
            for part in visible_batches(
                dataset,
                masks,
                encoder,
                rows=range(len(dataset)),
                batch_size=_AT_ONCE,
                skip_empty=self.options.skip_empty,
            )
        ]
        *parts, missing = zip(*found, strict=True)
        pixels, keep, labels, ids = (np.concatenate(part) for part in parts)
        there = labels >= 0
        keep = keep[there]
        if isinstance(masks, NaturalMasks):
            shown = float((keep != NO_PATCH).mean()) if len(keep) else 0.0
            noted |= {"missing_share": 1 - shown, "masks": {"name": "natural"}}
            noted["empty"] = [dataset.locate(int(row)) for row in np.flatnonzero(~there)]
            noted["missing_pixels"] = float(np.concatenate(missing).mean())
        return PixelSplit(self.given(pixels[there], keep), labels[there], ids[there], noted)
