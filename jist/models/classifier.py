"""An encoder and a linear head, to be trained end to end on visible patches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

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
        rngs: initialisation of the head's kernel, normal with deviation 0.01 (its bias is zero),
            and the stream "views".

    Raises:
        ValueError: an unknown pooling.
    """

    def __init__(
        self,
        encoder: MAEEncoder,
        classes: int,
        *,
        pooling: str = "cls",
        views: Views | None = None,
        rngs: nnx.Rngs,
    ):
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
        self.encoder = encoder
        self.pooling = pooling
        self.head = nnx.Linear(
            encoder.config.dim, classes, kernel_init=nnx.initializers.normal(0.01), rngs=rngs
        )
        self.views = views
        self.stream = None if views is None else rngs.views.fork()
        self.deterministic = False  # `model.train()` and `model.eval()` set it

    def __call__(self, x: dict[str, Any]) -> Float[Array, "batch classes"]:
        """The logits [B, C].

        Args:
            x: "image", pixels u8 [B, S, S, 3] of the encoder's size; "keep", indices of the visible
                patches i32 [B, K]; and, if images differ in how many are visible, "valid", which of
                them are no padding, bool [B, K].
        """
        images, keep, valid = x["image"], x["keep"], x.get("valid")
        if self.views is not None and self.stream is not None and not self.deterministic:
            keys = jax.random.split(self.stream(), len(images))
            images, keep = jax.vmap(self.views)(keys, images, keep)
        images = self.encoder.preprocessing.normalize(images.astype(jnp.float32))
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
