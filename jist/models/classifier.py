"""An encoder and a linear head, to be trained end to end on visible patches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from jist.models.mixup import Mixture, draw_mixture, mixed
from jist.models.vit import MAEEncoder

POOLINGS = ("cls", "mean")
# Images and visible patches -> those of a random view, for one image.
Views = Callable[
    [PRNGKeyArray, UInt8[Array, "side side channels"], Int[Array, " kept"]],
    tuple[Float[Array, "side side channels"], Int[Array, " kept"]],
]


class Classifier(nnx.Module):
    """From the visible patches of an image to its class.

    Args:
        encoder: with its values; not copied.
        classes: number of classes C.
        pooling: what the head sees: the "cls" token, or the "mean" of the visible patches' tokens.
        views: what happens to an image and its visible patches in training mode; nothing by
            default. `jist.finetuning` has some.
        mixup: alpha of `draw_mixture`, or 0 for no mixtures. A mixture has the visible patches of
            the example that it is named after, so masks must not depend on images.
        rngs: initialisation of the head's kernel, normal with deviation 0.01 (its bias is zero),
            and the streams "views" and "mixtures".

    Raises:
        ValueError: an unknown pooling, or a negative `mixup`.
    """

    def __init__(
        self,
        encoder: MAEEncoder,
        classes: int,
        *,
        pooling: str = "cls",
        views: Views | None = None,
        mixup: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if mixup < 0:
            raise ValueError(f"mixup must be at least 0, got {mixup}")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
        self.encoder = encoder
        self.pooling = pooling
        self.head = nnx.Linear(
            encoder.config.dim, classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs
        )
        self.views = views
        self.stream = None if views is None else rngs.views.fork()
        self.mixup = mixup
        self.mixtures = rngs.mixtures.fork() if mixup else None
        self.deterministic = False  # `model.train()` and `model.eval()` set it

    def mixture(self, batch: int) -> Mixture | None:
        """A mixture for B examples in training mode; None in evaluation mode or without mixup."""
        if self.mixtures is None or self.deterministic:
            return None
        return draw_mixture(self.mixtures(), batch, self.mixup)

    def __call__(
        self, x: dict[str, Any], mixture: Mixture | None = None
    ) -> Float[Array, "batch classes"]:
        """The logits [B, C].

        Args:
            x: "image", pixels u8 [B, S, S, 3] of the encoder's size; "keep", indices of the visible
                patches i32 [B, K]; and, if images differ in how many are visible, "valid", which of
                them are no padding, bool [B, K].
            mixture: of the images' views.
        """
        images, keep, valid = x["image"], x["keep"], x.get("valid")
        if self.views is not None and self.stream is not None and not self.deterministic:
            keys = jax.random.split(self.stream(), len(images))
            images, keep = jax.vmap(self.views)(keys, images, keep)
        images = images.astype(jnp.float32)
        if mixture is not None:
            images = mixed(images, mixture)
        images = self.encoder.preprocessing.normalize(images)
        wanted = 1 if self.pooling == "cls" else None
        tokens = self.encoder(images, keep, valid, wanted).astype(jnp.float32)
        return self.head(tokens[:, 0] if self.pooling == "cls" else _mean(tokens[:, 1:], valid))


def _mean(
    tokens: Float[Array, "batch kept dim"], valid: Bool[Array, "batch kept"] | None
) -> Float[Array, "batch dim"]:
    if valid is None:
        return jnp.mean(tokens, axis=1)
    there = valid[:, :, None]
    return jnp.sum(tokens * there, axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)
