"""Export: from a directory of jist to weights under PyTorch's names, bit for bit."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from conversion.errors import ConversionError, some
from conversion.names import TARGETS, VIT_NAMINGS, Naming, Rule
from conversion.overrides import Overrides
from conversion.preprocessing import RESAMPLING, read_preprocessing
from conversion.resnet_names import RESNET_NAMINGS
from conversion.source import Source
from conversion.writer import blank, write_safetensors
from jist.models import Preprocessing, weights
from jist.models.fields import of_json
from jist.models.shipped import locate
from jist.models.storage import read_config, staged
from jist.staging import replaced

# Settings that options of a conversion may have overridden.
OVERRULED = ("num_attention_heads", "decoder_num_attention_heads", "layer_norm_eps")


def export(
    directory: pathlib.Path, destination: pathlib.Path, to: str, *, overwrite: bool = False
) -> list[str]:
    """Writes a directory of jist under the names of `to`.

    Args:
        directory: what `convert` or `jist.models.save_encoder` wrote, or the name of a shipped
            encoder.
        destination: a directory for "huggingface", a `.pth` file for the others.
        to: "facebook", "huggingface" or "torchvision" (for a ResNet-50).
        overwrite: whether the destination is replaced.

    Returns:
        Remarks for the user.

    Raises:
        ConversionError: the directory is damaged, or has no names in `to`.
        FileExistsError: the destination exists.
    """
    directory = locate(directory)
    config = read_config(directory, "encoder.safetensors", "jist.models.save_encoder")
    if config.get("format") not in (weights.FORMAT, weights.RESNET_FORMAT):
        raise ConversionError(
            f"{directory} is no directory of jist: its config.json has another format"
        )
    channels = config.get("encoder", {}).get("channels", 3)
    if channels != 3:
        raise ConversionError(
            f"{directory} is an encoder of {channels} channels; those of colour images alone are "
            "converted back"
        )
    if config.get("preprocessing", {}).get("border", 0):
        raise ConversionError(
            f"{directory} has patches that begin outside of the image (border in its config.json), "
            "as no encoder under these names has; it is not converted back"
        )
    tensors, remarks = _tensors(directory, config, to)
    if to == "huggingface":
        with staged(destination, overwrite=overwrite) as staging:
            _write_huggingface(staging, config, tensors)
    else:
        _write_torch(destination, tensors, overwrite)
    return remarks


class _Part:
    """A safetensors file of the directory and the rules that convert it back."""

    def __init__(self, path: pathlib.Path, rules: list[Rule]):
        try:
            self.file = safe_open(path, "np")
        except SafetensorError as error:
            raise ConversionError(f"{path} is damaged or truncated: {error}") from None
        self.rules = rules
        missing = {rule.jist for rule in rules} - set(self.file.keys())
        if missing:
            raise ConversionError(f"{path} lacks {some(missing)}")

    def tensors(self, *, shapes_only: bool) -> Iterator[tuple[str, np.ndarray]]:
        """Names and arrays for the target; blank arrays if only shapes are needed."""
        for rule in self.rules:
            view = self.file.get_slice(rule.jist)
            # Numbers may be stored in fewer bits, as those of the shipped encoders are.
            array = (
                blank(tuple(view.get_shape())) if shapes_only else np.asarray(view[...], np.float32)
            )
            yield from rule.to_source(array)


class _Tensors:
    """All tensors under the names of the target: those of the parts, then the extra ones."""

    def __init__(self, parts: list[_Part], extra: pathlib.Path | None):
        self.parts = parts
        self.extra = safe_open(extra, "np") if extra else None

    def computed(self, *, shapes_only: bool = False) -> Iterator[tuple[str, np.ndarray]]:
        for part in self.parts:
            yield from part.tensors(shapes_only=shapes_only)

    def kept(self) -> dict[str, np.ndarray]:
        if self.extra is None:
            return {}
        return {name: self.extra.get_tensor(name) for name in self.extra.keys()}  # noqa: SIM118


def _tensors(
    directory: pathlib.Path, config: dict[str, Any], to: str
) -> tuple[_Tensors, list[str]]:
    source = config.get("source") or {}
    naming = _naming(config, source, to)
    depths = {
        "encoder": config.get("encoder", {}).get("depth", 0),
        "decoder": (config.get("decoder") or {}).get("depth", 0),
    }
    parts = [
        _Part(directory / f"{part}.safetensors", naming.rules(part, depth))
        for part, depth in depths.items()
        if (directory / f"{part}.safetensors").is_file()
    ]
    extra = directory / "extra.safetensors"
    if not extra.is_file():
        return _Tensors(parts, None), []
    if source.get("naming") == naming.name:
        return _Tensors(parts, extra), []
    return _Tensors(parts, None), [
        f"note     the tensors in {extra.name} have names of {source.get('naming')} only and are "
        "left out"
    ]


def _naming(config: dict[str, Any], source: dict[str, Any], to: str) -> Naming:
    namings = RESNET_NAMINGS if config["format"] == weights.RESNET_FORMAT else VIT_NAMINGS
    family = [naming for naming in namings if naming.family == to]
    if not family:
        allowed = sorted({naming.family for naming in namings} & {*TARGETS})
        raise ConversionError(
            f"a {config['format']} directory has no names in {to}; --to allows {', '.join(allowed)}"
        )
    for naming in family:
        if naming.name == source.get("naming"):
            return naming
    if to == "huggingface" and not config.get("decoder"):
        # The classes without a head have no prefix.
        return next(naming for naming in family if naming.name.endswith("-bare"))
    return family[0]


def _write_torch(destination: pathlib.Path, tensors: _Tensors, overwrite: bool) -> None:
    try:
        import torch
    except ImportError:
        raise ConversionError(
            "a .pth file is written by PyTorch, which is not installed: pip install -e '.[convert]'"
        ) from None
    if destination.is_dir() or (destination.exists() and not overwrite):
        raise FileExistsError(f"{destination} exists")
    destination.parent.mkdir(parents=True, exist_ok=True)
    arrays = dict(tensors.computed()) | tensors.kept()
    state = {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
    with replaced(destination) as staging:
        torch.save({"model": state}, staging)


def _write_huggingface(directory: pathlib.Path, config: dict[str, Any], tensors: _Tensors) -> None:
    kept = tensors.kept()
    blanks = dict(tensors.computed(shapes_only=True)) | kept

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        yield from tensors.computed()
        yield from kept.items()

    write_safetensors(directory / "model.safetensors", blanks, arrays())
    source = config.get("source") or {}
    theirs, ours = source.get("config"), huggingface_config(config)
    if theirs and source.get("format") == "huggingface":
        theirs |= {key: ours[key] for key in OVERRULED if key in ours}
    else:
        theirs = ours
    (directory / "config.json").write_text(json.dumps(theirs, indent=2) + "\n")
    preprocessor = source.get("preprocessor")
    if not preprocessor or not _is_read_as(preprocessor, config):
        preprocessor = _preprocessor(config)
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def _is_read_as(preprocessor: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether a source's own file says what the encoder does; an option may have said otherwise."""
    stored = of_json(Preprocessing, config["preprocessing"], "preprocessing")
    source = Source((), "", {}, preprocessor=preprocessor)
    return read_preprocessing(source, stored.interpolation, Overrides()) == stored


def huggingface_config(config: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` for `transformers` that corresponds to a jist `config.json`."""
    if config["format"] == weights.RESNET_FORMAT:
        return {"model_type": "resnet", "architectures": ["ResNetModel"]}
    encoder, decoder = config["encoder"], config.get("decoder")
    theirs = {
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining" if decoder else "ViTMAEModel"],
        "hidden_size": encoder["dim"],
        "num_hidden_layers": encoder["depth"],
        "num_attention_heads": encoder["heads"],
        "intermediate_size": encoder["mlp_dim"],
        "layer_norm_eps": encoder["layer_norm_eps"],
        "image_size": encoder["image_size"],
        "patch_size": encoder["patch_size"],
    }
    if decoder:
        theirs |= {
            "decoder_hidden_size": decoder["dim"],
            "decoder_num_hidden_layers": decoder["depth"],
            "decoder_intermediate_size": decoder["mlp_dim"],
            "norm_pix_loss": decoder["normalize_pixels"],
        }
        if decoder["heads"] is not None:
            theirs["decoder_num_attention_heads"] = decoder["heads"]
    return theirs


def _preprocessor(config: dict[str, Any]) -> dict[str, Any]:
    stored = config["preprocessing"]
    side = config.get("encoder", {}).get("image_size", 224)
    resample = {name: code for code, name in RESAMPLING.items()}[stored["interpolation"]]
    resized = stored.get("resize", "crop")
    square = {"height": side, "width": side}
    if resized == "pad":
        raise ConversionError(
            "the encoder pads images to a square (resize=pad in its config.json), which no image "
            "processor of transformers does; export it with another --to"
        )
    cut = {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": square}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": stored["mean"],
        "image_std": stored["std"],
        "resample": resample,
        **(cut if resized == "crop" else {"size": square}),
    }
