"""Modules on disk: directories of safetensors files beside a `config.json`."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

# All files that are ever written into such a directory; any other file belongs to the user.
FILES = {
    "config.json",
    "encoder.safetensors",
    "decoder.safetensors",
    "extra.safetensors",
    "model.safetensors",
    "preprocessor_config.json",
}


class ModelFileError(ValueError):
    """A file of a model is damaged, or does not fit the others."""


def tensors(module: nnx.Module) -> dict[str, Any]:
    """Every array of a module by its dotted name, e.g. "blocks.0.attention.qkv.kernel".

    For a module of `nnx.eval_shape` the values are shapes in place of arrays.
    """
    flat: dict[Any, Any] = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(module)))
    return {".".join(map(str, path)): array for path, array in flat.items()}


@contextlib.contextmanager
def staged(directory: str | os.PathLike, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """A new directory, whole or not at all: a temporary sibling, renamed at the end.

    Args:
        directory: the directory to create.
        overwrite: whether an existing directory of the same kind is replaced.

    Yields:
        The directory to write into; it is removed if the body raises.

    Raises:
        FileExistsError: `directory` exists and `overwrite` is not given, or it holds other files,
            or its config is of another kind.
    """
    directory = pathlib.Path(directory)
    if directory.exists():
        if not overwrite:
            raise FileExistsError(
                f"directory {directory} exists; encoders are written to a new one"
            )
        if not directory.is_dir() or {file.name for file in directory.iterdir()} - FILES:
            raise FileExistsError(
                f"{directory} is not replaced: it is no directory that holds nothing but "
                f"{', '.join(sorted(FILES))}"
            )
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield staging
        staging.chmod(0o755)
        if directory.exists():
            if any(directory.iterdir()) and _is_jists(directory) != _is_jists(staging):
                raise FileExistsError(
                    f"{directory} is not replaced: its config.json is of another kind than the new"
                )
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
            directory.rename(old / directory.name)
            staging.rename(directory)
            shutil.rmtree(old)
        else:
            staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_jists(directory: pathlib.Path) -> bool:
    """Whether the config of a directory is of a format of jist's, not of Hugging Face's."""
    try:
        config = json.loads((directory / "config.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(config, dict) and str(config.get("format", "")).startswith("jist-")


def read_config(
    directory: pathlib.Path, required: str, writer: str, *, otherwise: str = ""
) -> dict[str, Any]:
    """The `config.json` of a directory that holds the file `required` as well.

    Raises:
        FileNotFoundError: one of the two files is missing; the message names `writer`, which
            creates them, and `otherwise`, what else is allowed.
        ModelFileError: the config is no JSON object.
    """
    for file in ("config.json", required):
        if not (directory / file).is_file():
            raise FileNotFoundError(
                f"nothing to load at {directory}: {file} is missing; allowed is a directory "
                f"written by {writer} or `python -m conversion`{otherwise}"
            )
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{directory / 'config.json'} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise ModelFileError(f"{directory / 'config.json'} is damaged: it holds no JSON object")
    return config


def write_arrays(arrays: Mapping[str, np.ndarray], file: pathlib.Path) -> None:
    """Writes tensors to a safetensors file, which others may read as far as any new file.

    The library (0.8) gives its files to their owner alone.
    """
    file.touch()
    mode = file.stat().st_mode
    save_file(dict(arrays), file)
    file.chmod(mode)


def read_arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file.

    Raises:
        ModelFileError: the file is damaged.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ModelFileError(f"{file} is damaged: {error}") from None


def check_depth(depth: int, file: pathlib.Path) -> None:
    """Checks that a file may hold so many blocks, before they are built, which takes long.

    Raises:
        ModelFileError: it holds fewer tensors than blocks, or it is damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            names = len(opened.keys())
    except SafetensorError as error:
        raise ModelFileError(f"{file} is damaged: {error}") from None
    if depth > names:
        raise ModelFileError(
            f"{file} does not fit its config.json: it holds {names} tensors, too few for a depth "
            f"of {depth}"
        )


def fill(module: nnx.Module, arrays: dict[str, np.ndarray], file: pathlib.Path) -> None:
    """Puts arrays, as float32, into a module of `nnx.eval_shape`, in place.

    Raises:
        ModelFileError: the arrays are not the module's; every missing, unexpected and misshapen
            one, and every one that holds other than finite floats, is listed, and `file` is named.
    """
    _check(arrays, tensors(module), file)
    nested = traverse_util.unflatten_dict(
        {
            # Put, not `jnp.asarray`, which compiles a program for every shape.
            tuple(int(part) if part.isdigit() else part for part in name.split(".")): (
                jax.device_put(np.asarray(array, np.float32))
            )
            for name, array in arrays.items()
        }
    )
    nnx.update(module, nested)


def _check(arrays: dict[str, np.ndarray], expected: dict, file: pathlib.Path) -> None:
    faults = [f"missing: {name}" for name in sorted(expected.keys() - arrays.keys())]
    faults += [f"unexpected: {name}" for name in sorted(arrays.keys() - expected.keys())]
    faults += [
        f"misshapen: {name} is {list(arrays[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(arrays.keys() & expected.keys())
        if arrays[name].shape != expected[name].shape
    ]
    for name, array in sorted(arrays.items()):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            faults.append(f"no floating-point numbers: {name} is {array.dtype}")
        elif not np.isfinite(array).all():
            faults.append(f"not finite: {name}")
    if faults:
        raise ModelFileError(f"{file} does not fit its config.json:\n  " + "\n  ".join(faults))
