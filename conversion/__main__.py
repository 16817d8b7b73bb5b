"""Converts published weights to jist, verifies that outputs agree, and converts back.

    python -m conversion mae_pretrain_vit_base.pth encoders/mae-base --verify
    python -m conversion facebook/vit-mae-base encoders/hf-base
    python -m conversion encoders/mae-base mae-base-hf --to huggingface

SRC is a facebookresearch MAE or DINOv2 checkpoint or timm ViT (.pth, .safetensors), a directory or
id of Hugging Face's ViTMAE or Dinov2 (without register tokens), or a ResNet-50 v1.5 of torchvision,
NVIDIA or Hugging Face; and of encoders for remote sensing SSL4EO-S12's MAE (13 or 2 bands),
Scale-MAE (--ground-resolution), Prithvi-EO (one time step) and DOFA (--wavelengths). Name their
bands: --bands B1 B2 ... --scale 0 10000. Expected for a ViT-Base on 2 CPU cores: 8 seconds, and 50
with --verify.
"""

import dataclasses
import pathlib
import sys
import traceback
from typing import Annotated, Literal

import tyro

LONGEST = 1000


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the conversion."""

    src: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Weights: a file, a Hugging Face directory or id; with --to, a directory of jist."""
    dst: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Directory to write; with --to facebook or torchvision, a .pth file."""
    to: Literal["facebook", "huggingface", "torchvision"] | None = None
    """Convert back, from jist to weights under the names of this library."""
    verify: bool = False
    """Run PyTorch's model and jist's on the same images and patches; write only if they agree."""
    heads: int | None = None
    """Attention heads of the encoder, if neither its size nor a config gives them."""
    decoder_heads: int | None = None
    """Attention heads of the decoder, likewise."""
    layer_norm_eps: float | None = None
    """Epsilon of every LayerNorm, if not that of the source."""
    mean: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="R G B ...")] = None
    """Mean of each channel that the encoder's images are normalised by, with pixels in [0, 1], if
    not that of the source or, where it says none, ImageNet's."""
    std: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="R G B ...")] = None
    """Standard deviation of each channel, likewise."""
    bands: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...")] = None
    """Names of the channels, where they are bands of a sensor, such as B2 B3 B4: scripts then find
    them in images by name."""
    scale: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="LOW HIGH ...")] = None
    """Bands: the stored values that become 0 and 1 before mean and deviation are applied, a pair
    for all or one for each in turn; 0 10000 for reflectances of Sentinel-2."""
    resize: Literal["crop", "squash", "pad"] | None = None
    """How an image becomes a square: crop (by default) takes the central one, squash ignores the
    proportions, pad keeps the whole image and fills the rest with the mean."""
    ground_resolution: float | None = None
    """Scale-MAE: how many metres a pixel of your images is wide. Its positions are made for that,
    whatever the source holds."""
    wavelengths: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="UM ...")] = None
    """DOFA: wavelength of each channel in micrometres, such as 0.665 0.56 0.49 for red, green and
    blue. Its patch embedding is made for them."""
    overwrite: bool = False
    """Replace an existing DST of the same kind."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: Options) -> None:
    """Converts to jist or, with `to`, back."""
    # Imported late: `--help` and mistyped options need no JAX.
    from conversion.convert import convert
    from conversion.export import export
    from conversion.overrides import Overrides

    if options.to is not None:
        source = pathlib.Path(options.src)
        for line in export(source, options.dst, options.to, overwrite=options.overwrite):
            print(line)
        print(f"wrote    {options.dst}")
        return
    verify = None
    if options.verify:
        from conversion.verify import verify
    overrides = Overrides(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(Overrides)}
    )
    convert(options.src, options.dst, overrides, overwrite=options.overwrite, verify=verify)


def main(arguments: list[str] | None = None) -> int:
    """Parses options and runs; returns the exit status (2 for wrong options, 1 for failures)."""
    options = tyro.cli(
        Options,
        prog="python -m conversion",
        description=__doc__,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    into = ("verify", "heads", "decoder_heads", "layer_norm_eps", "mean", "std")
    into += ("bands", "scale", "resize", "ground_resolution", "wavelengths")
    given = any(getattr(options, name) != getattr(Options, name) for name in into)
    if options.to is not None and given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in into)
        print(f"error: {flags} apply to conversion into jist, not to --to", file=sys.stderr)
        return 2
    try:
        run(options)
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        # One line for any error: a damaged file can make any library raise anything.
        kind = (
            "" if type(error).__module__.startswith("conversion") else type(error).__name__ + ": "
        )
        hint = "" if isinstance(error, OSError) or not kind else " (--debug shows where)"
        text = " ".join(str(error).split())[:LONGEST]
        print(f"error: {'' if isinstance(error, OSError) else kind}{text}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
