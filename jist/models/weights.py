"""Encoders on disk: `encoder.safetensors` beside a `config.json` that says how to rebuild them.

A masked autoencoder adds `decoder.safetensors`, so its directory is also its encoder's.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from jist.models.abstract import abstract
from jist.models.decoder import DecoderConfig
from jist.models.fields import of_json
from jist.models.mae import MAE
from jist.models.positions import resize_positions
from jist.models.preprocessing import Preprocessing
from jist.models.resnet import ResNet50
from jist.models.shipped import DIRECTORY, locate, shipped_encoders
from jist.models.storage import (
    ModelFileError,
    check_depth,
    fill,
    read_arrays,
    read_config,
    staged,
    write_arrays,
)
from jist.models.storage import tensors as tensors
from jist.models.vit import MAEEncoder, ViTConfig

Encoder = MAEEncoder | ResNet50

FORMAT = "jist-encoder"
RESNET_FORMAT = "jist-resnet50"
VERSION = 1


def digest(encoder: MAEEncoder | ResNet50) -> str:
    """SHA-256 of an encoder: its shape, preprocessing, compute type and every tensor, in hex."""
    sha = hashlib.sha256()
    sha.update(json.dumps(_config(encoder) | {"dtype": str(encoder.dtype)}).encode())
    for name, array in sorted(tensors(encoder).items()):
        sha.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _config(encoder: MAEEncoder | ResNet50) -> dict[str, Any]:
    if isinstance(encoder, ResNet50):
        shape: dict[str, Any] = {"format": RESNET_FORMAT, "version": VERSION}
    else:
        shape = {
            "format": FORMAT,
            "version": VERSION,
            "encoder": encoder.config.as_json(),
        }
    return shape | {"preprocessing": encoder.preprocessing.as_json()}


def _decoder_config(mae: MAE) -> dict[str, Any]:
    return dataclasses.asdict(mae.decoder.config) | {"normalize_pixels": mae.normalize_pixels}


def _save(
    directory: str | os.PathLike,
    config: dict[str, Any],
    *,
    stored_dtype: DTypeLike = np.float32,
    overwrite: bool = False,
    **modules: nnx.Module,
) -> None:
    with staged(directory, overwrite=overwrite) as staging:
        for name, module in modules.items():
            arrays = {k: np.asarray(array, stored_dtype) for k, array in tensors(module).items()}
            write_arrays(arrays, staging / f"{name}.safetensors")
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def save_encoder(
    encoder: MAEEncoder,
    directory: str | os.PathLike,
    *,
    source: dict[str, Any] | None = None,
    stored_dtype: DTypeLike = np.float32,
    overwrite: bool = False,
) -> None:
    """Writes an encoder to a new directory, whole or not at all.

    Args:
        encoder: the encoder.
        directory: the directory to create.
        source: where the weights come from, recorded in `config.json`.
        stored_dtype: type in the file, float32, or float16 or bfloat16 to halve it.
        overwrite: whether an existing directory is replaced, if it holds nothing but models.

    Raises:
        FileExistsError: `directory` exists and must not be replaced.
    """
    config = _config(encoder) | {"source": source or {}}
    _save(directory, config, stored_dtype=stored_dtype, overwrite=overwrite, encoder=encoder)


def save_mae(
    mae: MAE,
    directory: str | os.PathLike,
    *,
    source: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a masked autoencoder, as `save_encoder` writes its encoder.

    Args:
        mae: encoder and decoder.
        directory: the directory to create.
        source: where the weights come from, recorded in `config.json`.
        overwrite: whether an existing directory is replaced, if it holds nothing but models.

    Raises:
        FileExistsError: `directory` exists and must not be replaced.
    """
    config = _config(mae.encoder) | {"decoder": _decoder_config(mae), "source": source or {}}
    _save(directory, config, overwrite=overwrite, encoder=mae.encoder, decoder=mae.decoder)


def save_resnet(
    resnet: ResNet50,
    directory: str | os.PathLike,
    *,
    source: dict[str, Any] | None = None,
    stored_dtype: DTypeLike = np.float32,
) -> None:
    """Writes a ResNet-50, as `save_encoder` writes an encoder."""
    config = _config(resnet) | {"source": source or {}}
    _save(directory, config, stored_dtype=stored_dtype, encoder=resnet)


def load_encoder(
    name: str | os.PathLike, *, image_size: int | None = None, dtype: DTypeLike = jnp.float32
) -> MAEEncoder:
    """Rebuilds an encoder that is shipped or lies in a directory.

    Args:
        name: the name of a shipped one (`shipped_encoders`), or the directory that `save_encoder`
            or `python -m conversion` wrote.
        image_size: side of the images in pixels, if different from the encoder's; the stored
            positions, but that of CLS, are then interpolated bicubically.
        dtype: compute type; parameters are float32 for any file.

    Raises:
        FileNotFoundError: no encoder is shipped under that name, and it is no directory with
            `config.json` and `encoder.safetensors`.
        ValueError: the config is of another format, the file's tensors do not fit it (every
            missing, unexpected and misshapen one is listed), or `image_size` is no multiple of the
            encoder's patch size.
    """
    directory = locate(name)
    config = read_config(
        directory,
        "encoder.safetensors",
        "jist.models.save_encoder",
        otherwise=f", or the name of a shipped encoder ({', '.join(shipped_encoders())})",
    )
    _expect(config, FORMAT, directory)
    stored = _vit_config(config, directory)
    check_depth(stored.depth, directory / "encoder.safetensors")
    side = stored.image_size if image_size is None else image_size
    shape = dataclasses.replace(stored, image_size=side)
    file = directory / "encoder.safetensors"
    arrays = read_arrays(file)
    if "positions" in arrays and arrays["positions"].shape == (1 + stored.patches, stored.dim):
        arrays["positions"] = resize_positions(arrays["positions"], shape.grid)
    preprocessing = _preprocessing(config, directory)
    encoder = abstract(MAEEncoder, shape, dtype=dtype, preprocessing=preprocessing)
    fill(encoder, arrays, file)
    return encoder


def load_mae(directory: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> MAE:
    """Rebuilds a masked autoencoder from its directory.

    Args:
        directory: what `save_mae`, or `python -m conversion` of a source with a decoder, wrote. Of
            a shipped encoder, which has no decoder, that is said.
        dtype: compute type; parameters are float32.

    Raises:
        FileNotFoundError: a file is missing, `decoder.safetensors` included.
        ValueError: as `load_encoder`; or the decoder's number of heads is not known.
    """
    directory = locate(directory)
    none = " (shipped encoders have no decoder)" if directory.parent == DIRECTORY else ""
    config = read_config(directory, "decoder.safetensors", "jist.models.save_mae", otherwise=none)
    _expect(config, FORMAT, directory)
    where = f"{directory / 'config.json'}: "
    if not isinstance(config.get("decoder"), dict):
        raise ModelFileError(f"{where}decoder must be a JSON object")
    decoder = dict(config["decoder"])
    if decoder.get("heads", 1) is None:
        raise ValueError(
            f"{directory / 'config.json'} does not say how many heads the decoder has, and no "
            "tensor shows; convert its source again with --decoder-heads"
        )
    normalize_pixels = decoder.pop("normalize_pixels", None)
    if not isinstance(normalize_pixels, bool):
        raise ModelFileError(f"{where}decoder.normalize_pixels must be bool")
    shape = _vit_config(config, directory)
    decoder_shape = of_json(DecoderConfig, decoder, f"{where}decoder", may_lack=())
    for part, depth in (("encoder", shape.depth), ("decoder", decoder_shape.depth)):
        check_depth(depth, directory / f"{part}.safetensors")
    preprocessing = _preprocessing(config, directory)
    mae = abstract(
        MAE,
        shape,
        decoder_shape,
        normalize_pixels=normalize_pixels,
        dtype=dtype,
        preprocessing=preprocessing,
    )
    for part in ("encoder", "decoder"):
        file = directory / f"{part}.safetensors"
        fill(getattr(mae, part), read_arrays(file), file)
    return mae


def load_any_encoder(name: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> Encoder:
    """Rebuilds an encoder, or a ResNet-50; arguments and errors as those of `load_encoder`."""
    directory = locate(name)
    if (directory / "config.json").is_file():
        config = read_config(directory, "encoder.safetensors", "jist.models.save_encoder")
        if config.get("format") == RESNET_FORMAT:
            return load_resnet(directory, dtype=dtype)
    return load_encoder(name, dtype=dtype)


def read_preprocessing(name: str | os.PathLike) -> Preprocessing:
    """The preprocessing of an encoder, as `load_any_encoder` finds it, without its weights.

    Raises:
        FileNotFoundError, ModelFileError: as `load_encoder`.
    """
    directory = locate(name)
    otherwise = f", or the name of a shipped encoder ({', '.join(shipped_encoders())})"
    config = read_config(
        directory, "encoder.safetensors", "jist.models.save_encoder", otherwise=otherwise
    )
    return _preprocessing(config, directory)


def load_resnet(directory: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> ResNet50:
    """Rebuilds a ResNet-50 from its directory.

    Args:
        directory: what `save_resnet` or `python -m conversion` wrote.
        dtype: compute type; parameters are float32.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: as `load_encoder`.
    """
    directory = pathlib.Path(directory)
    config = read_config(directory, "encoder.safetensors", "jist.models.save_resnet")
    _expect(config, RESNET_FORMAT, directory)
    preprocessing = _preprocessing(config, directory)
    resnet = abstract(ResNet50, dtype=dtype, preprocessing=preprocessing)
    file = directory / "encoder.safetensors"
    fill(resnet, read_arrays(file), file)
    return resnet


def _expect(config: dict[str, Any], form: str, directory: pathlib.Path) -> None:
    found = (config.get("format"), config.get("version"))
    if found != (form, VERSION):
        loader = {FORMAT: "load_encoder", RESNET_FORMAT: "load_resnet"}.get(str(found[0]))
        hint = f"; read it with jist.models.{loader}" if loader and found[0] != form else ""
        raise ValueError(
            f"{directory / 'config.json'} has format {found[0]!r} version {found[1]!r}, "
            f"expected {form!r} version {VERSION}{hint}"
        )


def _vit_config(config: dict[str, Any], directory: pathlib.Path) -> ViTConfig:
    where = f"{directory / 'config.json'}: encoder"
    return of_json(ViTConfig, config.get("encoder"), where, may_lack=("channels",))


def _preprocessing(config: dict[str, Any], directory: pathlib.Path) -> Preprocessing:
    where = f"{directory / 'config.json'}: preprocessing"
    may_lack = ("bands", "scale", "resize", "border")
    return of_json(Preprocessing, config.get("preprocessing"), where, may_lack=may_lack)
