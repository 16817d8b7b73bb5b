"""The loss of very many labels, and steps of the output layer that never hold its gradient."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jist.tasks.chunks import (
    Output,
    sigmoid_loss,
    sigmoid_slopes,
    softmax_loss,
    squared_loss,
    squared_slopes,
    train_output,
)
from jist.tasks.output import output_layer
from jist.tasks.sampled import sampled_sigmoid_loss

LOSSES = {"sigmoid": sigmoid_loss, "softmax": softmax_loss, "squared": squared_loss}
# Of losses whose slopes at a label do not depend on the other labels.
SLOPES = {"sigmoid": sigmoid_slopes, "squared": squared_slopes}


@dataclasses.dataclass(frozen=True)
class LabelLoss:
    """The mean loss of a batch {"x": ..., "y": i32 [B, most]}, as of `jist.tasks.multilabel`.

    Attributes:
        name: "sigmoid", "softmax" or "squared".
        chunk: labels whose logits are computed at a time.

    Raises:
        ValueError: an unknown loss, or `chunk` is not positive.
    """

    name: str
    chunk: int

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.name!r}")
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")

    def __call__(self, model: nnx.Module, batch: dict[str, Any]) -> Float[Array, ""]:
        """The loss, estimated from few labels where the model draws some.

        Raises:
            ValueError: labels are drawn, and the loss is not the sigmoid one.
        """
        output, sampler = output_layer(model, batch["x"]), _sampler(model)
        if sampler is None:
            return LOSSES[self.name](*output, batch["y"], self.chunk)
        if self.name != "sigmoid":
            raise ValueError(f"drawn labels need the loss 'sigmoid', got {self.name!r}")
        return sampled_sigmoid_loss(*output, batch["y"], sampler())

    def hidden(self, model: nnx.Module, batch: dict[str, Any]) -> Float[Array, "batch width"]:
        """What the output layer is given.

        Raises:
            ValueError: labels are drawn, or the slope at one label depends on all others.
        """
        if _sampler(model) is not None:
            raise ValueError(
                "FusedOutput needs the loss of all labels, got a model that draws some"
            )
        if self.name not in SLOPES:
            raise ValueError(
                f"FusedOutput needs one of the losses {', '.join(SLOPES)}, got {self.name!r}"
            )
        return output_layer(model, batch["x"])[0]

    def train_output(
        self,
        step: Callable[[Output, tuple[Array, Array]], Output],
        hidden: Float[Array, "batch width"],
        output: Output,
        batch: dict[str, Any],
    ) -> tuple[Float[Array, ""], Float[Array, "batch width"], Output]:
        """The loss, its gradient by `hidden`, and the output layer after its step.

        Arguments as of `jist.tasks.chunks.train_output`.
        """
        total, slopes, trained = train_output(
            SLOPES[self.name], step, hidden, output, batch["y"], self.chunk
        )
        constant = jnp.sum(batch["y"] >= 0) if self.name == "squared" else 0
        return (total + constant) / len(hidden), slopes, trained


def _sampler(model: Any) -> Any:
    """What draws labels, of a model that does so now."""
    sampler = getattr(model, "negatives", None)
    return None if sampler is None or sampler.deterministic else sampler
