"""Clips -> log-mel features."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.command.options import ImageOptions
from experiments.runs.splits import DenseSplit
from experiments.runs.stores import Classified, shared, store_paths
from jist import features
from jist.data.speech import (
    BANDS,
    FRAMES,
    SUFFIXES,
    Clips,
    load_speech,
    log_mel,
    read_clip,
    speech_splits,
)


@dataclasses.dataclass(frozen=True)
class ClipInputs(Classified):
    """Log-mel features of clips (VLDB 2022, §3.1)."""

    options: ImageOptions
    dim = BANDS * FRAMES
    kind = "clip (.flac, .wav)"

    @property
    def pinned(self) -> Mapping[str, str]:
        """Nothing: feature stores know their clips."""
        return {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """The features' name in the place of an encoder's."""
        return {"encoder": "log-mel, augmented" if self.options.augment else "log-mel"}

    @property
    def _path(self) -> str:
        return self.options.dataset.removeprefix("speech:")

    @property
    def split_names(self) -> tuple[str, ...]:
        """Training and test clips; with the published lists, those for validation, too."""
        return speech_splits(self._path, self.options.base)

    def examples(self, split: str) -> Clips:
        """The clips."""
        options = self.options
        return load_speech(self._path, split, test_share=options.test_share, base=options.base)

    def splits(
        self, mask_ratio: float, directory: pathlib.Path, progress: Progress
    ) -> dict[str, DenseSplit]:
        """Log-mel features; clips have no patches to mask."""
        of = f"log-mel-share-{self.options.test_share:g}"
        paths = store_paths(self.options, directory, of, self.split_names)

        def extract(split: str, path: pathlib.Path) -> None:
            features.extract_speech(self.examples(split), path, progress=progress)

        return shared(paths, self.examples, extract, self.options.resident_gb)

    def renewed(self, mask: str, mask_ratio: float) -> Callable[[int], np.ndarray] | None:
        """Clips augmented anew for every epoch."""
        if not self.options.augment:
            return None
        return features.AugmentedClips(self.examples("train"), seed=self.options.seed)

    def takes(self, name: str) -> bool:
        """Whether a file is a clip by its name."""
        return pathlib.Path(name).suffix.lower() in SUFFIXES

    def read(self, path: pathlib.Path) -> tuple[list[str], np.ndarray]:
        """The name and the features [1, D] of a clip that need not be of the data set."""
        return [str(path)], log_mel(read_clip(path)).reshape(1, self.dim)
