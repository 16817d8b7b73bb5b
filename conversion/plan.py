"""Recognises a source by its tensors: its naming, its model, its sizes."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from conversion.errors import ConversionError, some
from conversion.layouts import PATCHES, Layout, patches
from conversion.names import VIT_NAMINGS, Naming, Rule
from conversion.overrides import Overrides, valid
from conversion.preprocessing import read_preprocessing
from conversion.resnet_names import RESNET_NAMINGS
from conversion.source import Source
from jist.models import Preprocessing, ViTConfig
from jist.models.positions import sincos_positions

# Heads of the published sizes, by width: ViT-Tiny and -Small (DeiT), -Base, -Large, -Huge.
KNOWN_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
KNOWN_DECODER_HEADS = {512: 16}
FACEBOOK_EPSILON = 1e-6
# Names of DINOv2's and DINOv3's tokens that are of no patch, in all namings.
REGISTERS = ("register_tokens", "reg_token")
# The default of `transformers` for a ViT whose config does not set it.
HUGGINGFACE_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything known about a source before its numbers are read.

    Attributes:
        naming: the naming it follows.
        rules: rules of its parts, "encoder" and, where it has one, "decoder".
        extra: names of the tensors that are kept but not used.
        encoder: shape of the encoder; None is a ResNet-50.
        decoder: shape of the decoder (its `heads` may be None: unknown) and `normalize_pixels`.
        preprocessing: resizing and normalisation of its images.
        ground_resolution: as of the overrides.
        wavelengths: likewise.
    """

    naming: Naming
    rules: dict[str, list[Rule]]
    extra: tuple[str, ...]
    encoder: ViTConfig | None
    decoder: dict[str, Any] | None
    preprocessing: Preprocessing
    ground_resolution: float | None = None
    wavelengths: tuple[float, ...] | None = None


def make_plan(source: Source, overrides: Overrides) -> Plan:
    """Recognises a source.

    Raises:
        ConversionError: it is of no known architecture, tensors are missing or too many, its
            config contradicts them, or the number of heads is not known.
    """
    naming = _recognise(source)
    names = source.tensors.keys()
    rules = {"encoder": naming.rules("encoder", naming.depth(names, naming.encoder_block))}
    decoder = naming.rules("decoder", naming.depth(names, naming.decoder_block))
    if any(name in names for rule in decoder for name in rule.source):
        rules["decoder"] = decoder
    extra = _check_names(source, naming, rules)
    if naming in RESNET_NAMINGS:
        _check_resnet_config(source.config or {})
        preprocessing = read_preprocessing(source, "bilinear", overrides)
        return Plan(naming, rules, extra, None, None, preprocessing)
    encoder = _encoder(source, naming, rules["encoder"], overrides)
    rules["encoder"] = [
        dataclasses.replace(rule, layout=patches(encoder.channels))
        if rule.layout is PATCHES
        else rule
        for rule in rules["encoder"]
    ]
    decoder = _decoder(source, naming, rules["decoder"], overrides) if "decoder" in rules else None
    preprocessing = read_preprocessing(source, "bicubic", overrides, encoder.channels)
    metres = overrides.ground_resolution
    if metres is not None:
        rules["encoder"] = _positions_for(metres, encoder, rules["encoder"], decoder is not None)
    return Plan(
        *(naming, rules, extra, encoder, decoder, preprocessing),
        ground_resolution=metres,
        wavelengths=overrides.wavelengths,
    )


def _positions_for(
    metres: float, encoder: ViTConfig, rules: list[Rule], has_decoder: bool
) -> list[Rule]:
    """Rules whose positions are Scale-MAE's for a ground resolution, not the source's."""
    if not 0 < metres < math.inf:
        raise ConversionError(f"--ground-resolution must be positive metres, got {metres}")
    if has_decoder:
        raise ConversionError(
            "--ground-resolution is for Scale-MAE's encoder; the source has the decoder of another "
            "masked autoencoder"
        )
    made = sincos_positions(encoder.dim, encoder.grid, metres)
    layout = Layout(lambda _: made, lambda a: [a[None]])
    return [
        dataclasses.replace(rule, layout=layout) if rule.jist == "positions" else rule
        for rule in rules
    ]


def _recognise(source: Source) -> Naming:
    names = source.tensors.keys()

    def known(naming: Naming) -> int:
        parts = (("encoder", naming.encoder_block), ("decoder", naming.decoder_block))
        rules = [
            r for part, prefix in parts for r in naming.rules(part, naming.depth(names, prefix))
        ]
        return sum(name in names for rule in rules for name in rule.source)

    naming = max((*VIT_NAMINGS, *RESNET_NAMINGS), key=known)
    # A few names in common, such as `norm.weight`, do not make an architecture.
    if known(naming) < max(4, len(names) // 4):
        raise ConversionError(
            f"{source.files[0]} is of no known architecture: expected names such as "
            "patch_embed.proj.weight (facebookresearch, timm), "
            "vit.embeddings.patch_embeddings.projection.weight (Hugging Face) or "
            f"layer1.0.conv1.weight (ResNet-50); found {some(names)}"
        )
    return naming


def _check_names(source: Source, naming: Naming, rules: dict[str, list[Rule]]) -> tuple[str, ...]:
    registers = [name for name in source.tensors if name.endswith(REGISTERS)]
    if registers:
        raise ConversionError(
            f"{source.files[0]} has register tokens ({registers[0]}), which the encoder lacks; the "
            "variants without them, such as facebook/dinov2-base, are converted"
        )
    expected = {name for part in rules.values() for rule in part for name in rule.source}
    missing = expected - source.tensors.keys()
    others = source.tensors.keys() - expected
    extra = {name for name in others if naming.is_extra(name)}
    faults = []
    if missing:
        faults.append(f"missing: {some(missing)}")
    if others - extra:
        faults.append(f"unexpected: {some(others - extra)}")
    if faults:
        raise ConversionError(
            f"{source.files[0]} has {naming.name} names but is another architecture, or not whole; "
            + "; ".join(faults)
        )
    return tuple(sorted(extra))


def _shapes(source: Source, rules: list[Rule]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The source's first name and shape for every tensor of jist."""
    return {rule.jist: (rule.source[0], source.tensors[rule.source[0]].shape) for rule in rules}


def _encoder(source: Source, naming: Naming, rules: list[Rule], overrides: Overrides) -> ViTConfig:
    shapes = _shapes(source, rules)
    name, kernel = shapes["embed.kernel"]
    if len(kernel) != 4 or kernel[2] != kernel[3]:
        raise ConversionError(
            f"{name} is {list(kernel)}, expected [width, channels, patch, patch]: square patches"
        )
    dim, patch_size = kernel[0], kernel[2]
    name, positions = shapes["positions"]
    grid = math.isqrt(max(positions[-2] - 1, 0)) if len(positions) == 3 else 0
    if len(positions) != 3 or grid == 0 or positions[1] != 1 + grid**2:
        raise ConversionError(
            f"{name} is {list(positions)}, expected [1, 1 + patches, width]: one position for CLS "
            "and a square grid of patches"
        )
    if "blocks.0.mlp_in.kernel" not in shapes:
        raise ConversionError(f"{source.files[0]} holds no Transformer block")
    config = source.config or {}
    sizes = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "dim": dim,
        "depth": sum(name.endswith("mlp_in.kernel") for name in shapes),
        "mlp_dim": shapes["blocks.0.mlp_in.kernel"][1][0],
        "channels": kernel[1],
    }
    _check_config(source, config, sizes)
    heads = _first(overrides.heads, config.get("num_attention_heads"), KNOWN_HEADS.get(dim))
    if heads is None:
        raise ConversionError(
            f"the number of attention heads is needed (--heads): no tensor shows it, and an "
            f"encoder {dim} wide is none of the known sizes ({', '.join(map(str, KNOWN_HEADS))})"
        )
    return valid(
        ViTConfig, **sizes, heads=heads, layer_norm_eps=_epsilon(naming, config, overrides)
    )


def _epsilon(naming: Naming, config: Mapping[str, Any], overrides: Overrides) -> float:
    if overrides.layer_norm_eps is not None:
        return overrides.layer_norm_eps
    if naming.family in ("facebook", "dinov2"):
        return FACEBOOK_EPSILON
    return config.get("layer_norm_eps", HUGGINGFACE_EPSILON)


def _check_config(source: Source, config: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    theirs = {
        "image_size": "image_size",
        "patch_size": "patch_size",
        "hidden_size": "dim",
        "num_hidden_layers": "depth",
        "intermediate_size": "mlp_dim",
    }
    for key, ours in theirs.items():
        said = config.get(key)
        said = said[0] if isinstance(said, list) and len(set(said)) == 1 else said
        if said not in (None, sizes[ours]):
            raise ConversionError(
                f"{source.files[0].parent / 'config.json'} says {key}={said}, the tensors say "
                f"{sizes[ours]}"
            )
    if config.get("hidden_act", "gelu") != "gelu":
        raise ConversionError(
            f"{source.files[0].parent / 'config.json'} says hidden_act={config['hidden_act']!r}; "
            "the encoder has the exact GELU ('gelu') only"
        )


def _decoder(
    source: Source, naming: Naming, rules: list[Rule], overrides: Overrides
) -> dict[str, Any]:
    shapes = _shapes(source, rules)
    if "blocks.0.mlp_in.kernel" not in shapes:
        raise ConversionError(f"{source.files[0]} has a decoder without a block")
    dim = shapes["embed.bias"][1][0]
    config = source.config or {}
    said = config.get("decoder_num_attention_heads")
    plain = naming.family == "facebook" and "visualize" in source.files[0].name
    return {
        "dim": dim,
        "depth": sum(name.endswith("mlp_in.kernel") for name in shapes),
        "heads": _first(overrides.decoder_heads, said, KNOWN_DECODER_HEADS.get(dim)),
        "mlp_dim": shapes["blocks.0.mlp_in.kernel"][1][0],
        "normalize_pixels": config.get("norm_pix_loss", not plain),
    }


def _check_resnet_config(config: Mapping[str, Any]) -> None:
    expected = {
        "layer_type": "bottleneck",
        "depths": [3, 4, 6, 3],
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise ConversionError(
                f"config.json says {key}={config[key]!r}; ResNet-50 v1.5 has {value!r}"
            )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
