"""Tiles of a scene, as the head or the network of a run classifies them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from experiments.runs.images import ImageInputs, check_sees_patches
from experiments.runs.network_images import NetworkInputs
from experiments.runs.restored import Head
from jist.evaluation import predict
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep
from jist.models import Classifier, MAEEncoder
from jist.probabilities import log_probabilities


class TileClassifier:
    """Gives tiles probabilities of the classes, and says which of them show anything.

    Args:
        inputs: of the run.
        head: its head on features, or its network.
        batch_size: tiles at a time.
        max_missing: share of a visible patch that may be missing.

    Attributes:
        batch_size: as given.
        sees_patches: whether missing patches are left out; a network of convolutions sees tiles
            whole.

    Raises:
        UsageError: the head is on features of an encoder that sees images whole.
    """

    def __init__(
        self,
        inputs: ImageInputs | NetworkInputs,
        head: Head,
        *,
        batch_size: int,
        max_missing: float,
    ):
        self.batch_size = batch_size
        self._head, self._inputs, self._max_missing = head, inputs, max_missing
        self._encoder: MAEEncoder | None = None
        self._encode = None
        if isinstance(inputs, ImageInputs):
            self._encoder = check_sees_patches(inputs.options, inputs.encoder)
            self._encoder.eval()
            self._encode = ByLength(self._encoder, batch_size, pool=inputs.options.pool)
        elif isinstance(inputs.model, Classifier):
            self._encoder = inputs.model.encoder
            natural = dataclasses.replace(inputs.options, natural_masks=True)  # with padding
            self._inputs = dataclasses.replace(inputs, options=natural)
        self.sees_patches = self._encoder is not None

    def __call__(
        self,
        pixels: UInt8[np.ndarray, "tiles side side channels"],
        missing: Bool[np.ndarray, "tiles side side"],
    ) -> tuple[Float[np.ndarray, "tiles classes"], Bool[np.ndarray, " tiles"]]:
        """Probabilities [B, classes], and whether anything of a tile is visible [B].

        Args:
            pixels: tiles [B, S, S, C] of the network's size.
            missing: which of their pixels are [B, S, S].
        """
        if self._encoder is None:
            keep, seen = None, np.asarray(~missing.all(axis=(1, 2)))
        else:
            keep = natural_keep(missing, self._encoder.config.patch_size, self._max_missing)
            seen = keep[:, 0] != NO_PATCH
        if self._encode is not None and keep is not None:
            cls = jnp.asarray(self._encode(pixels, keep))
            logits = predict(self._head.model, cls)
        else:
            logits = self._network(pixels, keep)
        return np.exp(log_probabilities(np.asarray(logits), self._head.temperature or 1.0)), seen

    def _network(
        self, pixels: np.ndarray, keep: np.ndarray | None
    ) -> Float[Array, "tiles classes"]:
        """Logits by a network of whole tiles; the last batch is as large as the others."""
        assert isinstance(self._inputs, NetworkInputs)
        rows = np.arange(-(-len(pixels) // self.batch_size) * self.batch_size) % len(pixels)
        given = self._inputs.given(pixels[rows], None if keep is None else keep[rows])
        return predict(self._head.model, given, self.batch_size)[: len(pixels)]
