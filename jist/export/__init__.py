"""Trained classifiers for programs that do not know jist: StableHLO, ONNX, plain arrays."""

from jist.export.classify import Deployed, classify
from jist.export.convolutions import architecture, torch_tensors
from jist.export.folded import folded_layers
from jist.export.onnx import ConversionError, check_converter, write_onnx
from jist.export.stablehlo import write_stablehlo
from jist.export.tensors import write_tensors
from jist.export.weights import WEIGHTS

__all__ = [
    "WEIGHTS",
    "ConversionError",
    "Deployed",
    "architecture",
    "check_converter",
    "classify",
    "folded_layers",
    "torch_tensors",
    "write_onnx",
    "write_stablehlo",
    "write_tensors",
]
