"""The names of a Vision Transformer's tensors in each kind of source, mapped to jist's.

facebookresearch's MAE and timm share one naming. Hugging Face has a second, in four variants: with
and without the prefix `vit.`, as on the hub, as `transformers` 5 saves it (the decoder's blocks are
renamed by accident), and as in the `state_dict()` of a `transformers` 5 model. DINOv2 has names of
its own in both, for the LayerScale of its blocks.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator

import numpy as np

from conversion.layouts import (
    FUSED_BIAS,
    FUSED_LINEAR,
    LINEAR,
    PATCHES,
    POSITIONS,
    SAME,
    SCALED_BIAS,
    SCALED_LINEAR,
    VECTOR,
    Layout,
)

TARGETS = ("facebook", "huggingface", "torchvision")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor of jist, the names of the source's tensors it comes from, and their layout."""

    jist: str
    source: tuple[str, ...]
    layout: Layout = SAME

    def within(self, jist: str, source: str) -> "Rule":
        """The same rule with a prefix on either side."""
        return Rule(jist + self.jist, tuple(source + name for name in self.source), self.layout)

    def to_source(self, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The names and arrays of the source's tensors, of a tensor of jist."""
        return zip(self.source, self.layout.to_source(array), strict=True)


@dataclasses.dataclass(frozen=True)
class Naming:
    """All names of one kind of source.

    Attributes:
        name: recorded in `config.json`, so that an export uses the same names.
        family: the `--to` to which it belongs, one of `TARGETS`; or one to which nothing is
            converted back, "dinov2" or "dinov2-huggingface".
        encoder: rules of the encoder, without its blocks.
        decoder: rules of the decoder, without its blocks.
        block: rules within a block.
        encoder_block: prefix of the encoder's blocks in the source, with {} for the number.
        decoder_block: prefix of the decoder's blocks.
        extra: names (a regular expression) that are kept but not used: heads and the like.
    """

    name: str
    family: str
    encoder: tuple[Rule, ...]
    decoder: tuple[Rule, ...] = ()
    block: tuple[Rule, ...] = ()
    encoder_block: str = ""
    decoder_block: str = ""
    extra: str = ""

    def depth(self, names: Iterable[str], prefix: str) -> int:
        """The number of blocks with this prefix that occur in some names."""
        if not prefix:
            return 0
        pattern = re.compile(re.escape(prefix).replace(r"\{\}", r"(\d+)"))
        return len({found[1] for found in map(pattern.match, names) if found})

    def rules(self, part: str, depth: int) -> list[Rule]:
        """Every rule of the part "encoder" or "decoder" with so many blocks."""
        prefix = {"encoder": self.encoder_block, "decoder": self.decoder_block}[part]
        outside = {"encoder": self.encoder, "decoder": self.decoder}[part]
        return list(outside) + [
            rule.within(f"blocks.{i}.", prefix.format(i))
            for i in range(depth)
            for rule in self.block
        ]

    def is_extra(self, name: str) -> bool:
        """Whether a tensor of this name may be there without being used."""
        return re.fullmatch(self.extra, name) is not None


def linear(jist: str, *source: str, scale: str | None = None) -> tuple[Rule, Rule]:
    """Kernel and bias of a linear layer; of a fused one, if the source has three.

    Args:
        jist: the layer's name in jist.
        source: its name in the source, or those of its parts.
        scale: the name of a LayerScale behind it.
    """
    if scale is not None:
        (name,) = source
        return (
            Rule(f"{jist}.kernel", (f"{name}.weight", scale), SCALED_LINEAR),
            Rule(f"{jist}.bias", (f"{name}.bias", scale), SCALED_BIAS),
        )
    fused = len(source) > 1
    return (
        Rule(
            f"{jist}.kernel",
            tuple(f"{name}.weight" for name in source),
            FUSED_LINEAR if fused else LINEAR,
        ),
        Rule(
            f"{jist}.bias",
            tuple(f"{name}.bias" for name in source),
            FUSED_BIAS if fused else SAME,
        ),
    )


def norm(jist: str, source: str) -> tuple[Rule, Rule]:
    """Scale and bias of a LayerNorm."""
    return Rule(f"{jist}.scale", (f"{source}.weight",)), Rule(f"{jist}.bias", (f"{source}.bias",))


def _embedding(projection: str, cls: str, positions: str) -> tuple[Rule, ...]:
    return (
        Rule("embed.kernel", (f"{projection}.weight",), PATCHES),
        Rule("embed.bias", (f"{projection}.bias",)),
        Rule("cls", (cls,), VECTOR),
        Rule("positions", (positions,), POSITIONS),
    )


def _decoder(prefix: str, mask_token: str) -> tuple[Rule, ...]:
    return (
        *linear("embed", f"{prefix}decoder_embed"),
        Rule("mask_token", (mask_token,), VECTOR),
        Rule("positions", (f"{prefix}decoder_pos_embed",), POSITIONS),
        *norm("norm", f"{prefix}decoder_norm"),
        *linear("pixels", f"{prefix}decoder_pred"),
    )


def _facebook(
    name: str, final_norm: str, extra: str, scales: tuple[str | None, str | None] = (None, None)
) -> Naming:
    return Naming(
        name=name,
        family="facebook",
        encoder=(
            *_embedding("patch_embed.proj", "cls_token", "pos_embed"),
            *norm("norm", final_norm),
        ),
        decoder=_decoder("", "mask_token"),
        block=(
            *norm("norm1", "norm1"),
            *linear("attention.qkv", "attn.qkv"),
            *linear("attention.out", "attn.proj", scale=scales[0]),
            *norm("norm2", "norm2"),
            *linear("mlp_in", "mlp.fc1"),
            *linear("mlp_out", "mlp.fc2", scale=scales[1]),
        ),
        encoder_block="blocks.{}.",
        decoder_block="decoder_blocks.{}.",
        extra=extra,
    )


_HUB_QKV = tuple(f"attention.attention.{x}" for x in ("query", "key", "value"))
_HUB_BLOCK = (
    *norm("norm1", "layernorm_before"),
    *linear("attention.qkv", *_HUB_QKV),
    *linear("attention.out", "attention.output.dense"),
    *norm("norm2", "layernorm_after"),
    *linear("mlp_in", "intermediate.dense"),
    *linear("mlp_out", "output.dense"),
)
_MEMORY_BLOCK = (
    *norm("norm1", "layernorm_before"),
    *linear("attention.qkv", *(f"attention.{x}_proj" for x in "qkv")),
    *linear("attention.out", "attention.o_proj"),
    *norm("norm2", "layernorm_after"),
    *linear("mlp_in", "mlp.fc1"),
    *linear("mlp_out", "mlp.fc2"),
)


def _huggingface(
    name: str, prefix: str, blocks: str, decoder_blocks: str, block: tuple[Rule, ...]
) -> Naming:
    embeddings = f"{prefix}embeddings"
    return Naming(
        name=name,
        family="huggingface",
        encoder=(
            *_embedding(
                f"{embeddings}.patch_embeddings.projection",
                f"{embeddings}.cls_token",
                f"{embeddings}.position_embeddings",
            ),
            *norm("norm", f"{prefix}layernorm"),
        ),
        decoder=_decoder("decoder.", "decoder.mask_token"),
        block=block,
        encoder_block=f"{prefix}{blocks}.{{}}.",
        decoder_block=f"decoder.{decoder_blocks}.{{}}.",
        extra=r"classifier\..*|(vit\.)?pooler\..*|(vit\.)?embeddings\.mask_token",
    )


def _dinov2() -> Naming:
    scales = ("ls1.gamma", "ls2.gamma")
    naming = _facebook("dinov2", "norm", r"mask_token|head\..*", scales)
    return dataclasses.replace(naming, family="dinov2", decoder=())


def _dinov2_huggingface(name: str, prefix: str) -> Naming:
    plain = _huggingface(name, prefix, "encoder.layer", "", ())
    block = (
        *norm("norm1", "norm1"),
        *linear("attention.qkv", *_HUB_QKV),
        *linear("attention.out", "attention.output.dense", scale="layer_scale1.lambda1"),
        *norm("norm2", "norm2"),
        *linear("mlp_in", "mlp.fc1"),
        *linear("mlp_out", "mlp.fc2", scale="layer_scale2.lambda1"),
    )
    extra = rf"classifier\..*|{re.escape(prefix)}embeddings\.mask_token"
    family = "dinov2-huggingface"
    return dataclasses.replace(plain, family=family, decoder=(), block=block, extra=extra)


# Where several know as many names, the first is meant.
VIT_NAMINGS = (
    _facebook("facebook", "norm", r"(head|fc_norm)\..*"),
    # A classifier over the average of the patch tokens has its LayerNorm behind the average.
    _facebook("facebook-average", "fc_norm", r"head\..*"),
    _huggingface("huggingface", "vit.", "encoder.layer", "decoder_layers", _HUB_BLOCK),
    _huggingface("huggingface-5", "vit.", "encoder.layer", "decoder_encoder.layer", _HUB_BLOCK),
    _huggingface("huggingface-bare", "", "encoder.layer", "decoder_layers", _HUB_BLOCK),
    _huggingface("huggingface-memory", "vit.", "layers", "decoder_layers", _MEMORY_BLOCK),
    _huggingface("huggingface-memory-bare", "", "layers", "decoder_layers", _MEMORY_BLOCK),
    _dinov2(),
    _dinov2_huggingface("dinov2-huggingface", ""),
    _dinov2_huggingface("dinov2-huggingface-classifier", "dinov2."),
)
