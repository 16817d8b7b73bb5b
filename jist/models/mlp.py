"""The classifier head: a multi-layer perceptron that names the axes of its neurons.

The layer sizes 768-1000-1000-classes are those of Kariotakis et al. (CPAL 2024), §2.1. Every hidden
layer names its neurons, `hidden1`, `hidden2`, …, in the metadata of the parameters that touch them.
`jist.ist` cuts subnetworks by these names alone; this module is independent of workers.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from jist.models.label_sampler import LabelSampler
from jist.models.standardize import Scale, Standardize

NORMS = ("standardize", "scale", None)


class MLP(nnx.Module):
    """A multi-layer perceptron with ReLU.

    Args:
        widths: neurons of every layer, input and output included, e.g. (768, 1000, 1000, 10).
        norm: how subnetworks are corrected for missing inputs: "standardize" each hidden
            pre-activation, "scale" each hidden activation, or None. Hidden layers have no bias
            where they are standardised.
        dropout: share of a hidden layer's activations that is dropped in training.
        negatives: labels that are drawn in every training step, for a loss to compute in the place
            of all (`jist.tasks.multilabel`); 0 for none.
        rngs: initialisation of the kernels (LeCun normal), biases are zero; and the random numbers
            of dropout and of the drawn labels.

    Raises:
        ValueError: fewer than two widths, a width that is not positive, an unknown norm, a share
            outside [0, 1).
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (768, 1000, 1000, 10),
        *,
        norm: str | None = "standardize",
        dropout: float = 0.0,
        negatives: int = 0,
        rngs: nnx.Rngs,
    ):
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths must be at least two positive integers, got {widths}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.widths = tuple(widths)
        self.norm = norm
        hidden = [f"hidden{i}" for i in range(1, len(widths) - 1)]
        # Standardisation subtracts a bias again with the mean: its gradient would be rounding
        # noise, which Adam would turn into steps of full length.
        biased = [norm != "standardize"] * len(hidden) + [True]
        self.layers = nnx.List(
            nnx.Linear(
                inputs,
                outputs,
                use_bias=bias,
                kernel_init=nnx.with_metadata(
                    nnx.initializers.lecun_normal(), neurons=(before, after)
                ),
                bias_init=nnx.with_metadata(nnx.initializers.zeros_init(), neurons=(after,)),
                rngs=rngs,
            )
            for inputs, outputs, before, after, bias in zip(
                widths[:-1], widths[1:], [None, *hidden], [*hidden, None], biased, strict=True
            )
        )
        correction = {"standardize": Standardize, "scale": Scale}.get(norm or "")
        self.corrections = nnx.List(
            correction(width, name)
            for width, name in zip(widths[1:-1], hidden, strict=True)
            if correction is not None
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.negatives = LabelSampler(negatives, widths[-1], rngs=rngs) if negatives else None

    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch classes"]:
        """Logits [B, C] of the features x [B, D]."""
        return self.last(self.hidden(x))

    @property
    def last(self) -> nnx.Linear:
        """The output layer, for losses that compute some of its outputs at a time."""
        return self.layers[-1]

    def hidden(self, x: Float[Array, "batch features"]) -> Float[Array, "batch width"]:
        """What the output layer is given."""
        for i, layer in enumerate(self.layers[:-1]):
            x = self._activations(i, layer(x))
        return x

    def _activations(self, i: int, z: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
        """The activations of a hidden layer, from its linear map's outputs."""
        if self.norm == "standardize":
            z = self.corrections[i](z)
        x = jax.nn.relu(z)
        if self.norm == "scale":
            x = self.corrections[i](x)
        return x if self.dropout is None else self.dropout(x)
