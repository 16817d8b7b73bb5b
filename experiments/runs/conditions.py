"""Conditions other than the run's own under which its heads are tested: masks, clouds, images."""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.progress import Progress

from experiments.command.errors import UsageError
from experiments.command.options import NATURAL, READING, ImageOptions
from experiments.runs.clips import ClipInputs
from experiments.runs.images import ImageInputs
from experiments.runs.inputs import Inputs, open_inputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.masks import like_masked
from experiments.runs.network_images import NetworkInputs
from experiments.runs.splits import ClassSplit, Split
from experiments.runs.vectors import VectorInputs
from jist.data.images.layout import find_splits
from jist.data.speech import LISTS
from jist.tasks import Examples


@dataclasses.dataclass(frozen=True)
class Tested:
    """Test examples with one class each, and where their images are.

    Attributes:
        parts: the splits they come from, and the inputs that have their images.
        label: class of each, among those of the run [N].
    """

    parts: tuple[tuple[str, Inputs | NetworkInputs, ClassSplit], ...]
    label: np.ndarray

    @functools.cached_property
    def examples(self) -> Examples:
        """{"x", "y"}."""
        found = [part.examples()["x"] for _, _, part in self.parts]
        if len(found) > 1:
            found = [jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)]
        return {"x": found[0], "y": self.label}

    def image(self, row: int) -> tuple[str, Image.Image] | None:
        """The name and the picture of an example; None where it is no image."""
        for name, inputs, split in self.parts:
            if row >= len(split):
                row -= len(split)
                continue
            if not isinstance(inputs, ImageInputs | NetworkInputs):
                return None
            dataset = inputs.examples(name)
            (found,) = np.flatnonzero(dataset.example_ids == split.example_ids[row])[:1]
            return dataset.keys[found], dataset.open(int(found))
        raise IndexError(row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """What a run is tested on, where it is not its own test examples.

    Attributes:
        dataset: another data set with the same classes.
        labels: where the labels of other vectors are, as the option; by default in the column that
            the run's are in, but not in the file of the run's.
        mask_ratio: another masking ratio, of fixed masks.
        natural_masks, simulate_clouds, no_data, max_missing: as of the options of images.
    """

    dataset: str | None = None
    labels: str | None = None
    mask_ratio: float | None = None
    natural_masks: bool = False
    simulate_clouds: float | None = None
    no_data: int | None = None
    max_missing: float = 0.0

    def __str__(self) -> str:
        clouds = None if self.simulate_clouds is None else f"clouds {self.simulate_clouds:g}"
        ratio = None if self.mask_ratio is None else f"ratio {self.mask_ratio:g}"
        natural = "natural masks" if self.natural_masks or self.no_data is not None else None
        return ", ".join(filter(None, (self.dataset, ratio, clouds, natural)))

    @property
    def kind(self) -> str:
        """What hides parts of the images: of one kind are the points of one curve."""
        if self.mask_ratio is not None:
            return "fixed masks"
        return "natural masks" if self.simulate_clouds is None else "clouds"

    def applied(self, images: ImageOptions) -> ImageOptions:
        """The options of a run's images under this condition.

        Raises:
            UsageError: they do not go together.
        """
        options: dict[str, Any] = {}
        if self.dataset is not None:
            of_file = images.labels is not None and bool(pathlib.Path(images.labels).suffix)
            labels = None if of_file else images.labels
            options |= {"dataset": self.dataset, "labels": self.labels or labels}
            if self.dataset.startswith("masked:"):  # it has masks of its own, made of its bands
                options |= NATURAL | dict.fromkeys(READING)
        if self.mask_ratio is not None:
            options |= NATURAL | {"mask_ratio": self.mask_ratio}
        if self.natural_masks or self.simulate_clouds is not None or self.no_data is not None:
            names = ("natural_masks", "simulate_clouds", "no_data", "max_missing")
            options |= {name: getattr(self, name) for name in names}
            options |= {"mask_ratio": None, "skip_empty": True}
        return dataclasses.replace(images, **options)


def tested(
    inputs: Inputs | NetworkInputs,
    condition: Condition,
    images: ImageOptions,
    mask_ratio: float,
    class_names: list[str],
    features_dir: pathlib.Path,
    progress: Progress,
) -> Tested:
    """The test examples of a run under a condition.

    Args:
        inputs: the run's.
        condition: what is other.
        images: the run's options.
        mask_ratio: the training's, where the condition names none.
        class_names: the run's.
        features_dir: where features are kept.
        progress: shows bars.

    Raises:
        UsageError: options that do not go together; examples of another kind, or of a class that
            the run does not know.
        DataError: features that are called otherwise than the run's.
    """
    options = condition.applied(images)
    chosen = options.natural or condition.mask_ratio is not None
    if isinstance(inputs, ImageInputs) and not chosen:  # whole images are seen as in training
        options = dataclasses.replace(options, **like_masked(inputs.options))
    if isinstance(inputs, ManyLabelInputs):
        raise UsageError(f"{condition} needs examples of one class each; the run has many labels")
    whole = isinstance(inputs, NetworkInputs)
    other = dataclasses.replace(inputs, options=options) if whole else open_inputs(options)
    if isinstance(other, VectorInputs) and isinstance(inputs, VectorInputs):
        other = other.in_order_of(inputs)
    if type(other) is not type(inputs) or other.dim != inputs.dim:
        raise UsageError(
            f"dataset={options.dataset} cannot be tested by a run on {images.dataset}: it has "
            "examples of another kind or length"
        )
    ratio = mask_ratio if condition.mask_ratio is None else condition.mask_ratio
    ratio = 0.0 if options.natural else ratio
    parts = []
    if condition.dataset not in (None, images.dataset):  # two data sets may end in the same name
        digest = hashlib.sha256(options.dataset.encode()).hexdigest()
        features_dir = features_dir / f"other-{digest[:8]}"
    for name in _splits(other, options, own=images.dataset):
        found = one_split(other, name, ratio, features_dir, progress)
        assert isinstance(found, ClassSplit)
        parts.append((name, other, found))
    labels = [_known(found, class_names, options.dataset) for _, _, found in parts]
    return Tested(tuple(parts), np.concatenate(labels))


def one_split(
    inputs: Inputs | NetworkInputs,
    name: str,
    mask_ratio: float,
    features_dir: pathlib.Path,
    progress: Progress,
) -> Split:
    """The split "train" or "test", without the other one where that takes work."""
    if isinstance(inputs, ImageInputs | NetworkInputs):
        return inputs.split(name, mask_ratio, features_dir, progress)
    return inputs.splits(mask_ratio, features_dir, progress)[name]


def _splits(other: Inputs | NetworkInputs, options: ImageOptions, own: str) -> tuple[str, ...]:
    """The test examples, and all examples of other data of one's own without a split."""
    if options.dataset == own or _bring_split(other, options):
        return ("test",)
    return ("train", "test")


def _bring_split(other: Inputs | NetworkInputs, options: ImageOptions) -> bool:
    if isinstance(other, VectorInputs):
        return len(other.files) > 1 or other.files[0].split is not None
    kind, _, path = options.dataset.partition(":")
    root = options.base / pathlib.Path(path).expanduser()
    if isinstance(other, ClipInputs):
        return (root / LISTS["test"]).is_file()
    return kind != "folder" or bool(find_splits(root))


def _known(split: ClassSplit, class_names: list[str], dataset: str) -> np.ndarray:
    names = split.attributes["class_names"]
    unknown = sorted(set(names) - set(class_names))
    if unknown:
        raise UsageError(
            f"dataset={dataset} has classes that the run does not know: {', '.join(unknown)[:200]}"
        )
    places = np.array([class_names.index(name) for name in names], np.int32)
    return places[split.label]
