"""Opens a source safely, and reads each tensor only when it is needed.

A pickle can run any code, so PyTorch files are only opened with `weights_only=True`. One class is
allowed beside tensors: `argparse.Namespace`, a plain container that checkpoints of
facebookresearch's training contain.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from conversion.errors import ConversionError, some
from jist.models.shipped import locate

WRAPPERS = ("model", "state_dict", "model_state_dict")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Of DistributedDataParallel, torch.compile, and of models that hold an encoder in a part of theirs.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "teacher.")
SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is read when it is needed."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened source.

    Attributes:
        files: where its tensors are.
        kind: what it is, in words.
        tensors: by the source's own names.
        config: Hugging Face's `config.json`, where there is one.
        preprocessor: Hugging Face's `preprocessor_config.json`, likewise.
        original: the source as it is, where an encoder of images made from it stands here.
        padding: pixels by which its first convolution pads images on every side.
        revision: the commit on the hub that it is of, if it comes from there.
    """

    files: tuple[pathlib.Path, ...]
    kind: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    preprocessor: dict[str, Any] | None = None
    original: "Source | None" = None
    padding: int = 0
    revision: str | None = None


def open_source(name: str) -> Source:
    """Opens a file, a Hugging Face directory, or a Hugging Face id.

    Raises:
        ConversionError: there is no such thing, it is damaged, it holds more than tensors, or
            reading it needs a package that is not installed.
    """
    path = locate(pathlib.Path(name).expanduser())
    if path.is_dir():
        return _open_directory(path, "Hugging Face directory")
    if path.is_file():
        return _open_beside_config(path)
    hub = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?", name)
    if hub and path.suffix not in (".pth", ".pt", ".tar"):
        snapshot = _download(hub[1], hub[2])
        source = _open_directory(snapshot, "Hugging Face id")
        return dataclasses.replace(source, revision=snapshot.name)
    raise ConversionError(
        f"{name}: no such file or directory, nor a Hugging Face id (owner/name[@revision])"
    )


def _open_beside_config(path: pathlib.Path) -> Source:
    kind, tensors = _open_file(path)
    config = _read_json(path.parent / "config.json")
    named = any("embeddings." in name or "embedder." in name for name in tensors)
    # Files beside any other file may have nothing to do with it.
    if named or "pretrained_cfg" in (config or {}):
        preprocessor = _read_json(path.parent / "preprocessor_config.json")
        return Source((path,), kind, tensors, config, preprocessor)
    return Source((path,), kind, tensors)


def _open_directory(directory: pathlib.Path, kind: str) -> Source:
    config = _read_json(directory / "config.json")
    if config is None:
        raise ConversionError(f"{directory} holds no config.json; a Hugging Face directory has one")
    if str(config.get("format", "")).startswith("jist-"):
        raise ConversionError(
            f"{directory} is a jist directory already; with --to it is converted back"
        )
    files = _weight_files(directory)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _open_file(file)[1]
    return Source(files, kind, tensors, config, _read_json(directory / "preprocessor_config.json"))


def _weight_files(directory: pathlib.Path) -> tuple[pathlib.Path, ...]:
    for name in WEIGHTS:
        if (directory / name).is_file():
            return (directory / name,)
        index = _read_json(directory / f"{name}.index.json")
        if index is not None:
            shards = sorted(set(index.get("weight_map", {}).values()))
            # Shards are named by plain file names, so an index cannot point outside its directory.
            absent = [s for s in shards if "/" in s or not (directory / s).is_file()]
            if absent or not shards:
                raise ConversionError(
                    f"{directory / name}.index.json lists files that are not there: {some(absent)}"
                )
            return tuple(directory / shard for shard in shards)
    raise ConversionError(
        f"{directory} holds no weights: expected one of {', '.join(WEIGHTS)}, or an index of shards"
    )


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ConversionError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds no JSON object")
    return content


def _open_file(path: pathlib.Path) -> tuple[str, dict[str, Tensor]]:
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ConversionError(f"{path} is empty")
    if start.lstrip().startswith(b"<"):
        raise ConversionError(
            f"{path} is a web page (HTML), not weights: the download was answered with a page"
        )
    if start.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{path} is a Git LFS pointer; fetch the file itself (git lfs pull)")
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return "safetensors file", _open_safetensors(path)
    return _open_torch(path)


def _open_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    try:
        file = safe_open(path, "np")
    except SafetensorError as error:
        raise ConversionError(f"{path} is damaged or truncated: {error}") from None
    tensors = {}
    for name in file.keys():  # noqa: SIM118  # a safe_open is no mapping
        view = file.get_slice(name)
        dtype = SAFETENSORS_TYPES.get(view.get_dtype() or "", str(view.get_dtype()))
        read = functools.partial(file.get_tensor, name)
        tensors[name] = Tensor(tuple(view.get_shape()), dtype, read)
    return _without_prefix(tensors)


def _open_torch(path: pathlib.Path) -> tuple[str, dict[str, Tensor]]:
    content = _load_torch(path)
    kind = "PyTorch file, bare state dict"
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content, kind = content[wrapper], f'PyTorch file, {{"{wrapper}": ...}}'
                break
    import torch

    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in content.items()
    ):
        found = some(list(map(str, content))) if isinstance(content, Mapping) else type(content)
        raise ConversionError(
            f"{path} is no state dict: expected names with tensors, or such a dict under one of "
            f"{', '.join(WRAPPERS)}; found {found}"
        )
    tensors = {
        name: Tensor(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            functools.partial(_to_numpy, tensor),
        )
        for name, tensor in content.items()
    }
    return kind, _without_prefix(tensors)


def _load_torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError:
        raise ConversionError(
            f"{path} is a PyTorch file, and PyTorch is not installed: pip install -e '.[convert]'"
        ) from None
    with path.open("rb") as file:
        mappable = file.read(2) == b"PK"  # the format before PyTorch 1.6 is no zip
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except Exception as error:
        if re.search(r"GLOBAL|Unsupported (class|operand|global)", str(error)):
            needed = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({needed[1]})" if needed else ""
            raise ConversionError(
                f"{path} holds more than tensors{what}; loading it could run any code, so it is "
                "refused: if you trust it, save its state dict alone to a new file, with "
                f"content = torch.load({str(path)!r}, weights_only=False); "
                "torch.save(content.get('model', content), 'weights.pth')"
            ) from error
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConversionError(
            f"{path} is damaged, truncated or no PyTorch file: {line[:200]}"
        ) from error


def _to_numpy(tensor: Any) -> np.ndarray:
    # NumPy itself has no bfloat16; float32 holds every one of its numbers.
    known = str(tensor.dtype).removeprefix("torch.") in SAFETENSORS_TYPES.values()
    exact = known and str(tensor.dtype) != "torch.bfloat16"
    return (tensor if exact else tensor.float()).detach().numpy()


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the names that wrappers put before every other, as often as there are any."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            short = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            return _without_prefix(short)
    return tensors


def _download(name: str, revision: str | None) -> pathlib.Path:
    """The snapshot of a repository of the hub, whose directory is called by its commit."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConversionError(
            f"{name} is a Hugging Face id, and huggingface_hub is not installed: "
            "pip install -e '.[convert]'"
        ) from None
    directory = None
    for weights in ("model*.safetensors", "pytorch_model*.bin"):
        patterns = ["config.json", "preprocessor_config.json", weights, "*.index.json"]
        try:
            found = snapshot_download(name, revision=revision, allow_patterns=patterns)
        except Exception as error:
            of = f" --revision {revision}" if revision else ""
            raise ConversionError(
                f"{name} is neither here nor in Hugging Face's cache, and the hub does not give it "
                f"({type(error).__name__}). On a machine with a network: hf download {name}{of} "
                f"--local-dir {name.rpartition('/')[2]}; bring that directory here, and "
                "python -m conversion DIRECTORY DST makes a directory that --encoder takes"
            ) from error
        directory = pathlib.Path(found)
        if list(directory.glob(weights)):
            break
    assert directory is not None
    return directory
