"""Exports of one network in the programs that run them: JAX, ONNX Runtime, PyTorch."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from experiments.runs.directory import read_json
from jist.placement import available_cores

BATCH = 100  # images at a time, where nothing is timed

# Probabilities [B, C] of images u8 [B, S, S, C] and their visible patches i32 [B, K].
Call = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that classifies.

    Attributes:
        runtime: what runs it.
        call: gives probabilities.
        batch: images of a call where nothing is timed.
        visible: the only number of visible patches that it takes; None if it takes any.
        operations: floating-point operations of a call, as XLA counts them; None if it is unknown.
    """

    runtime: str
    call: Call
    batch: int = BATCH
    visible: int | None = None
    operations: Callable[[np.ndarray, np.ndarray], int] | None = None

    def classes(self, images: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """The classes [N] of images."""
        parts = [slice(i, i + self.batch) for i in range(0, len(images), self.batch)]
        return np.concatenate([self.call(images[p], keep[p]).argmax(axis=1) for p in parts])


def programs(directory: pathlib.Path) -> list[Program]:
    """The programs that run an export, on every core that may be used.

    Args:
        directory: as `experiments.export` wrote it; of `safetensors`, PyTorch runs the network,
            eager and by `torch.compile`.
    """
    config = read_json(directory / "config.json")
    if config["format"] == "stablehlo":
        return [_by_jax(directory)]
    if config["format"] == "onnx":
        return [Program("ONNX Runtime", _by_onnx(directory), visible=config["most_visible"])]
    from experiments.bench.torch_classifier import torch_classifier

    return [
        Program("PyTorch", torch_classifier(directory, compiled=False)),
        Program("PyTorch, compiled", torch_classifier(directory, compiled=True), batch=1),
    ]


def _by_jax(directory: pathlib.Path) -> Program:
    program = jax.export.deserialize(bytearray((directory / "model.stablehlo").read_bytes()))
    compiled = jax.jit(program.call)  # once for each shape

    def operations(images: np.ndarray, keep: np.ndarray) -> int:
        counted = compiled.lower(images, keep).compile().cost_analysis() or {}
        return round(counted["flops"])

    return Program(
        "JAX", lambda images, keep: np.asarray(compiled(images, keep)), operations=operations
    )


def _by_onnx(directory: pathlib.Path) -> Call:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    session = onnxruntime.InferenceSession(directory / "model.onnx", options)
    return lambda images, keep: session.run(None, {"x": images, "keep": keep})[0]
