"""Names for the neurons of an encoder's blocks, so that it can be trained by parts."""

from collections.abc import Sequence

import jax
from flax import nnx

from jist.models.abstract import abstract
from jist.models.reconstruct import Reconstruct
from jist.models.reconstruct_scores import ReconstructScores
from jist.models.stack import Stack
from jist.models.standardize import Scale, Statistic
from jist.models.transformer import Block
from jist.models.vit import MAEEncoder

KINDS = ("mlp", "heads", "channels", "blocks")
CORRECTIONS = ("scale", "reconstruct", "none")


def name_neurons(
    encoder: MAEEncoder, kinds: Sequence[str] = ("mlp", "heads"), *, correction: str = "none"
) -> None:
    """Names the neurons of an encoder in the metadata of its parameters, in place.

    Every block has layers of its own: `block0.mlp`, its MLP's hidden neurons; and either
    `block0.heads?`, whole attention heads, or `block0.channels`, channels of every head's queries,
    keys and values. With "blocks" there is the layer `blocks?`, of whole blocks, which then lie in
    a `Stack`; their MLPs and heads are dealt alike, as `blocks.mlp` and `blocks.heads?`.
    What lies along tokens (the embedding, LayerNorm, the biases of outputs) names no neurons, but
    for that of a block.

    Args:
        encoder: of any values.
        kinds: which neurons are named, of `KINDS`; the others stay on every worker.
        correction: what corrects a subnetwork for the neurons and heads that it lacks: "scale", its
            activations are scaled up as `Scale` does, so that the sums that they enter estimate the
            full network's; "reconstruct", what the others give is estimated from its own by least
            squares (`Reconstruct`), under IST; or "none". The full network is unchanged.

    Raises:
        ValueError: an unknown kind, or none; "heads" and "channels", which are the same numbers; an
            unknown correction; or "reconstruct" of blocks.
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"correction must be one of {CORRECTIONS}, got {correction!r}")
    if correction == "reconstruct" and "blocks" in kinds:
        raise ValueError(
            "correction='reconstruct' needs neurons of mlp, heads and channels alone, got "
            f"{tuple(kinds)}: what whole blocks give is not estimated"
        )
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"neurons must be some of {KINDS}, got {tuple(kinds)}")
    if {"heads", "channels"} <= set(kinds):
        raise ValueError(f"neurons must be heads or channels of all heads, got {tuple(kinds)}")
    stacked = "blocks" in kinds
    for number, block in enumerate(encoder.blocks):
        name_block(block, "blocks" if stacked else f"block{number}", kinds, correction=correction)
    if stacked:
        encoder.blocks = Stack(list(encoder.blocks), "blocks?")


def name_block(block: Block, name: str, kinds: Sequence[str], *, correction: str) -> None:
    """Names the neurons of one block, in place.

    A head has its columns in the fused projection to queries, keys and values. The residual
    connection passes heads by, so a worker may have none of them. Of a channel every head has one
    column of its query, its key and its value; the scores of some channels estimate those of all.
    """
    if "mlp" in kinds:
        layer = f"{name}.mlp"
        block.mlp_in.kernel.set_metadata(neurons=(None, layer))
        _bias_of(block.mlp_in).set_metadata(neurons=(layer,))
        block.mlp_out.kernel.set_metadata(neurons=(layer, None))
        block.correction = _correction(correction, block.mlp_in.out_features, layer)
    if "heads" in kinds:
        layer, attention = f"{name}.heads?", block.attention
        fused, width = (3, layer, attention.width), attention.width
        attention.qkv.kernel.set_metadata(neurons=(None, fused))
        _bias_of(attention.qkv).set_metadata(neurons=(fused,))
        attention.out.kernel.set_metadata(neurons=((layer, width), None))
        heads = attention.out.in_features // width
        attention.correction = _correction(correction, heads, layer)
    if "channels" in kinds:
        layer, attention = f"{name}.channels", block.attention
        heads = attention.heads
        estimate = ReconstructScores if correction == "reconstruct" else Scale
        attention.scores = estimate(attention.width, layer)
        attention.qkv.kernel.set_metadata(neurons=(None, (3 * heads, layer)))
        _bias_of(attention.qkv).set_metadata(neurons=((3 * heads, layer),))
        attention.out.kernel.set_metadata(neurons=((heads, layer), None))
        attention.correction = _correction(correction, attention.width, layer)


def _correction(correction: str, width: int, layer: str) -> Scale | Reconstruct | None:
    """What a layer's activations meet on their way to the linear map that reads them."""
    if correction == "scale":
        return Scale(width, layer)
    return Reconstruct() if correction == "reconstruct" else None


def unnamed(encoder: MAEEncoder) -> MAEEncoder:
    """A copy, in float32, that names no neurons and scales none: the encoder as it is stored."""
    copy = abstract(MAEEncoder, encoder.config, preprocessing=encoder.preprocessing)
    values = nnx.to_pure_dict(nnx.state(encoder, nnx.Not(Statistic)))
    if isinstance(encoder.blocks, Stack):
        each = values["blocks"]["each"]
        values["blocks"] = {
            number: jax.tree.map(lambda leaf, number=number: leaf[number], each)
            for number in range(encoder.config.depth)
        }
    nnx.update(copy, values)
    return copy


def _bias_of(layer: nnx.Linear) -> nnx.Variable:
    assert layer.bias is not None
    return layer.bias
