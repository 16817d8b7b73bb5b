"""Names for the neurons of an encoder's blocks, so that it can be trained by parts."""

from collections.abc import Sequence

from flax import nnx

from jist.models.standardize import Scale, Statistic
from jist.models.transformer import Block
from jist.models.vit import MAEEncoder

KINDS = ("mlp", "heads")


def name_neurons(
    blocks: Sequence[Block], kinds: Sequence[str] = KINDS, *, scaled: bool = False
) -> None:
    """Names neurons in the metadata of the blocks' parameters, in place.

    Every block has layers of its own: `block0.mlp`, its MLP's hidden neurons, and `block0.heads?`,
    whole attention heads, with their columns of the fused projection to queries, keys and values.
    The residual connection passes a block's heads by, so a worker may have none of them. What lies
    along tokens (the embedding, LayerNorm, the biases of outputs) names no neurons.

    Args:
        blocks: of an encoder, of any values.
        kinds: which neurons are named, of `KINDS`; the others stay on every worker.
        scaled: whether a subnetwork's activations are scaled up as `Scale` does, so that the sums
            that they enter estimate the full network's. The full network is unchanged.

    Raises:
        ValueError: an unknown kind, or none.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"neurons must be some of {KINDS}, got {tuple(kinds)}")
    for number, block in enumerate(blocks):
        if "mlp" in kinds:
            name = f"block{number}.mlp"
            block.mlp_in.kernel.set_metadata(neurons=(None, name))
            _bias_of(block.mlp_in).set_metadata(neurons=(name,))
            block.mlp_out.kernel.set_metadata(neurons=(name, None))
            if scaled:
                block.correction = Scale(block.mlp_in.out_features, name)
        if "heads" in kinds:
            name, attention = f"block{number}.heads?", block.attention
            fused, width = (3, name, attention.width), attention.width
            attention.qkv.kernel.set_metadata(neurons=(None, fused))
            _bias_of(attention.qkv).set_metadata(neurons=(fused,))
            attention.out.kernel.set_metadata(neurons=((name, width), None))
            if scaled:
                attention.correction = Scale(attention.out.in_features // width, name)


def unnamed(encoder: MAEEncoder) -> MAEEncoder:
    """A copy, in float32, that names no neurons and scales none: the encoder as it is stored."""
    copy = nnx.eval_shape(
        lambda: MAEEncoder(encoder.config, preprocessing=encoder.preprocessing, rngs=nnx.Rngs(0))
    )
    nnx.update(copy, nnx.to_pure_dict(nnx.state(encoder, nnx.Not(Statistic))))
    return copy


def _bias_of(layer: nnx.Linear) -> nnx.Variable:
    assert layer.bias is not None
    return layer.bias
