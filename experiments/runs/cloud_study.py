"""What a frozen encoder makes of images under clouds, by what it is shown in their place."""

import dataclasses
import hashlib
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int, UInt8
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from experiments.runs import hub
from experiments.runs.filling import filled, reconstructed
from experiments.runs.images import RANDOM_ENCODERS
from jist.data import Dataset, batches
from jist.data.images.clouds import cloud_mask
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep
from jist.models import MAE, MAEEncoder, digest, load_any_encoder

RELAXED, DECODED = "relaxed", "reconstructed"
METHODS = ("dropped", RELAXED, "painted", "mean", "nearest", DECODED)
CLEAR = "clear"
_cls_vectors = nnx.jit(cls_vectors)


def digests_of(encoder: str, mae: MAE | None) -> dict[str, str]:
    """What a study's results depend on beside its options: SHA-256 of the weights, by their names.

    Args:
        encoder: as the option; a random one follows from the seed.
        mae: the same with its decoder, if that takes part.
    """
    if encoder in RANDOM_ENCODERS:
        return {}
    name = hub.local(encoder)
    weights = load_any_encoder(name) if mae is None else mae.encoder
    found = {"encoder_sha256": digest(weights), **hub.revision(encoder)}
    if mae is not None:
        decoder = pathlib.Path(name, "decoder.safetensors").read_bytes()
        found["decoder_sha256"] = hashlib.sha256(decoder).hexdigest()
    return found


class Chosen(NamedTuple):
    """Some images of a split.

    Attributes:
        images: [N, S, S, C] uint8, of the encoder's size.
        labels: their classes [N].
        ids: their ids [N].
    """

    images: UInt8[np.ndarray, "images side side channels"]
    labels: Int[np.ndarray, " images"]
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Study:
    """The images of one seed, and who sees them.

    Attributes:
        splits: "train" and "test".
        encoder: the frozen encoder.
        mae: it with its decoder, for `reconstructed`.
        seed: of the clouds.
        batch_size: images encoded at a time.
        max_missing: for `relaxed`, share of a visible patch that may be hidden.
    """

    splits: Mapping[str, Chosen]
    encoder: MAEEncoder
    mae: MAE | None
    seed: int
    batch_size: int
    max_missing: float

    def compile(self, methods: Sequence[str]) -> None:
        """Runs every program of the methods once, so that time is that of the work alone."""
        config, count = self.encoder.config, self.batch_size
        blank = np.zeros((count, config.image_size, config.image_size, config.channels), "u1")
        clear = np.zeros(blank.shape[:3], bool)
        for method in methods:
            if method not in ("dropped", RELAXED):
                self.vectors(method, blank, clear)
        if not {"dropped", RELAXED}.isdisjoint(methods):
            encode = ByLength(self.encoder, count)
            for length in encode.lengths:
                encode(blank, np.tile(np.arange(length), (count, 1)))

    def measure(
        self, methods: Sequence[str], cover: float, advance: Callable[[], None]
    ) -> list[dict]:
        """Test accuracy, CPU time and bytes of each method; a cover of 0 is a clear sky.

        Returns:
            One row for each method. `bytes_per_image` counts the pixels of the patches that are
            encoded; `cpu_ms_per_image` the filling and encoding of an image, all cores together,
            which is that of work alone after `compile`.
        """
        features: dict = {method: {} for method in methods}
        seconds, patches = (dict.fromkeys(methods, 0.0) for _ in range(2))
        left_out = encoded = 0
        for split, (images, labels, ids) in self.splits.items():
            hidden = np.zeros(images.shape[:3], bool)
            if cover:
                side = self.encoder.config.image_size
                hidden = np.stack([cloud_mask(self.seed, int(i), side, cover) for i in ids])
            seen = natural_keep(hidden, self.encoder.config.patch_size, 0.0)[:, 0] != NO_PATCH
            left_out += int((~seen).sum())
            images, hidden = images[seen], hidden[seen]
            encoded += len(images)
            for method in methods:
                began = time.process_time()
                cls, shown = self.vectors(method, images, hidden)
                seconds[method] += time.process_time() - began
                patches[method] += shown
                features[method][split] = cls, labels[seen]
                advance()
        patch_bytes = self.encoder.config.channels * self.encoder.config.patch_size**2
        return [
            {
                "seed": self.seed,
                "cover": cover,
                "method": method,
                "test_accuracy": probe(features[method]["train"], features[method]["test"]),
                "cpu_ms_per_image": round(1000 * seconds[method] / encoded, 4),
                "bytes_per_image": round(patches[method] * patch_bytes / encoded, 1),
                "left_out": left_out,
            }
            for method in methods
        ]

    def vectors(
        self,
        method: str,
        images: UInt8[np.ndarray, "images side side channels"],
        hidden: Bool[np.ndarray, "images side side"],
    ) -> tuple[Float[np.ndarray, "images dim"], int]:
        """CLS vectors [N, D] of images under clouds, and how many patches were encoded of all."""
        size, mean = self.encoder.config.patch_size, self.encoder.preprocessing.fill
        if method in ("dropped", RELAXED):
            keep = natural_keep(hidden, size, self.max_missing if method == RELAXED else 0.0)
            given = images if method == "dropped" else filled(images, hidden, "mean", mean)
            cls = ByLength(self.encoder, self.batch_size)(given, keep)
            return cls, int((keep != NO_PATCH).sum())
        if method == DECODED:
            assert self.mae is not None
            keep = natural_keep(hidden, size, 0.0)
            given = reconstructed(self.mae, images, hidden, keep, self.batch_size)
        else:
            given = filled(images, hidden, method, mean)
        return self._whole(given), self.encoder.config.patches * len(images)

    def _whole(self, images: np.ndarray) -> np.ndarray:
        """CLS vectors [N, D] of whole images, in batches of one size."""
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            padding = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), "u1")
            padded = jnp.asarray(np.concatenate([batch, padding]))
            keep = jnp.tile(jnp.arange(self.encoder.config.patches), (self.batch_size, 1))
            found.append(np.asarray(_cls_vectors(self.encoder, padded, keep))[: len(batch)])
        return np.concatenate(found)


def chosen(dataset: Dataset, count: int, seed: int, encoder: MAEEncoder) -> Chosen:
    """At most `count` images of a data set, drawn by the seed, as the encoder sees them."""
    order = np.random.default_rng([seed, len(dataset)]).permutation(len(dataset))[:count]
    found = list(
        batches(
            dataset,
            image_size=encoder.config.image_size,
            preprocessing=encoder.preprocessing,
            batch_size=500,
            rows=np.sort(order),
        )
    )
    parts = [(some.images, some.labels, some.example_ids) for some in found]
    return Chosen(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def probe(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Test accuracy of a logistic regression on standardised features.

    Args:
        train: features [N, D] and classes [N].
        test: likewise.
    """
    scale = StandardScaler().fit(train[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are enough to compare
        fitted = LogisticRegression(C=0.1, max_iter=200).fit(scale.transform(train[0]), train[1])
    return float(fitted.score(scale.transform(test[0]), test[1]))
