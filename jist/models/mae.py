"""The masked autoencoder: an encoder of the visible patches and a light decoder of all of them.

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377). The decoder sees the
encoded visible patches and, in every other place, one learned mask token, and predicts the pixels;
the loss is the mean squared error on the missing patches only (§3).
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jist.models.decoder import Decoder, DecoderConfig
from jist.models.preprocessing import Preprocessing
from jist.models.vit import MAEEncoder, ViTConfig, patchify, unpatchify

# Keeps the normalisation of a patch of one colour finite.
VARIANCE_EPSILON = 1e-6


class MAE(nnx.Module):
    """A masked autoencoder.

    Args:
        config: shape of the encoder.
        decoder: shape of the decoder.
        normalize_pixels: whether the target of a patch is standardised with the patch's own mean
            and deviation, as in the models that the papers use (Table 1d); the published
            `mae_visualize_*` predict plain pixels.
        dtype: compute type, float32 or bfloat16; parameters and loss are float32 either way.
        preprocessing: resizing and normalisation of its images.
        rngs: initialisation.
    """

    def __init__(
        self,
        config: ViTConfig,
        decoder: DecoderConfig | None = None,
        *,
        normalize_pixels: bool = True,
        dtype: DTypeLike = jnp.float32,
        preprocessing: Preprocessing | None = None,
        rngs: nnx.Rngs,
    ):
        self.normalize_pixels = normalize_pixels
        self.encoder = MAEEncoder(config, dtype=dtype, preprocessing=preprocessing, rngs=rngs)
        self.decoder = Decoder(config, decoder or DecoderConfig(), dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        keep: Int[Array, "batch kept"] | None,
        valid: Bool[Array, "batch kept"] | None = None,
    ) -> Float[Array, "batch patches pixels"]:
        """Predicts the target of every patch, the visible ones included.

        Args:
            images: [B, H, W, C] float32, normalised.
            keep: indices of the visible patches [B, K], or None for all of them.
            valid: which of them are no padding [B, K]; None if all are.

        Returns:
            [B, L, p²·C]; a patch is flattened as (row, column, channel).
        """
        tokens = self.encoder(images, keep, valid)
        if keep is not None and valid is not None:
            keep = jnp.where(valid, keep, self.encoder.config.patches)  # padding is dropped
        return self.decoder(tokens, keep)

    def target(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch patches pixels"]:
        """The targets [B, L, p²·C]: pixels, standardised per patch with `normalize_pixels`."""
        patches = patchify(images, self.encoder.config.patch_size)
        if not self.normalize_pixels:
            return patches
        mean, deviation = _patch_statistics(patches)
        return (patches - mean) / deviation

    def loss(
        self,
        images: Float[Array, "batch height width channels"],
        keep: Int[Array, "batch kept"],
        valid: Bool[Array, "batch kept"] | None = None,
        visible: Bool[Array, "batch patches"] | None = None,
    ) -> Float[Array, ""]:
        """Mean squared error of the predictions on the missing patches only.

        Args, errors: as for `squared_error`.

        Returns:
            The mean over the predicted patches of all images; 0 if there are none.
        """
        error, predicted = self.squared_error(images, keep, valid, visible)
        return error / jnp.maximum(predicted, 1)

    def squared_error(
        self,
        images: Float[Array, "batch height width channels"],
        keep: Int[Array, "batch kept"],
        valid: Bool[Array, "batch kept"] | None = None,
        visible: Bool[Array, "batch patches"] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The sum of the mean squared errors of the predicted patches, and their number.

        Unlike the loss, both can be summed over the parts of a batch.

        Args:
            images: [B, H, W, C] float32, normalised.
            keep: indices of the patches that the encoder sees [B, K].
            valid: which of them are no padding [B, K]; None if all are.
            visible: which patches the images have [B, L]; the others are neither encoded nor
                predicted. At most L - K patches of an image may be present but not in `keep`. None
                if all are present.

        Raises:
            ValueError: every patch is visible, so nothing is missing.
        """
        if keep.shape[1] >= self.encoder.config.patches:
            raise ValueError(
                f"keep holds all {self.encoder.config.patches} patches; the loss is taken on the "
                "missing ones, so at least one must be left out"
            )
        wanted = self._missing(keep, valid)
        if visible is not None:
            wanted = wanted * visible
        # With padding, an image may leave out more patches than one that keeps K.
        columns = wanted.shape[1] - (0 if valid is not None and visible is None else keep.shape[1])
        # Patches that are left out sort behind the others, which stay in order.
        missing = jnp.argsort(1 - wanted, axis=1)[:, :columns]
        counted = jnp.take_along_axis(wanted, missing, axis=1)
        meant = None
        if valid is not None or visible is not None:
            seen = jnp.ones(keep.shape, bool) if valid is None else valid
            seen = jnp.pad(seen, [(0, 0), (1, 0)], constant_values=True)  # CLS
            meant = jnp.concatenate([counted > 0, seen], axis=1)
        tokens = self.encoder(images, keep, valid)
        predicted = self.decoder.missing(tokens, keep, missing, meant)
        target = jnp.take_along_axis(self.target(images), missing[:, :, None], axis=1)
        errors = jnp.mean((predicted.astype(jnp.float32) - target) ** 2, axis=-1)
        return jnp.sum(errors * counted), jnp.sum(counted)

    def reconstruct(
        self,
        images: Float[Array, "batch height width channels"],
        keep: Int[Array, "batch kept"],
        valid: Bool[Array, "batch kept"] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Images [B, H, W, C] whose visible patches are as given and the missing ones predicted.

        Args: as of a call.

        A model with `normalize_pixels` predicts a patch up to its mean and deviation only; those
        are taken from the image itself.
        """
        patches = patchify(images, self.encoder.config.patch_size)
        predicted = self(images, keep, valid).astype(jnp.float32)
        if self.normalize_pixels:
            mean, deviation = _patch_statistics(patches)
            predicted = predicted * deviation + mean
        missing = self._missing(keep, valid)[:, :, None]
        return unpatchify(
            jnp.where(missing > 0, predicted, patches), self.encoder.config.patch_size
        )

    def _missing(
        self, keep: Int[Array, "batch kept"], valid: Bool[Array, "batch kept"] | None = None
    ) -> Float[Array, "batch patches"]:
        patches = self.encoder.config.patches
        if valid is not None:
            keep = jnp.where(valid, keep, patches)  # padding is dropped
        ones = jnp.ones((len(keep), patches))
        return ones.at[jnp.arange(len(keep))[:, None], keep].set(0, mode="drop")


def _patch_statistics(
    patches: Float[Array, "batch patches pixels"],
) -> tuple[Float[Array, "batch patches 1"], Float[Array, "batch patches 1"]]:
    mean = jnp.mean(patches, axis=-1, keepdims=True)
    # The unbiased variance, as in the published models.
    variance = jnp.var(patches, axis=-1, keepdims=True, ddof=1)
    return mean, jnp.sqrt(variance + VARIANCE_EPSILON)
