"""A classifier as an ONNX graph, by jax2onnx.

jax2onnx 0.17.1 gives wrong shapes where the number of tokens is open, so a graph is made for one
number of visible patches, and images that show fewer are padded with -1. What it notes of the
shapes in between is wrong even so where a last block is computed for CLS alone, and is left out:
ONNX Runtime would put results into buffers of another size.
"""

import importlib.util
import logging
import pathlib

import jax

from jist.export.classify import Deployed, classify

FILE = "model.onnx"
NEEDED = ("onnx", "jax2onnx", "onnxruntime")


class ConversionError(RuntimeError):
    """The converter is not there."""


def check_converter() -> None:
    """Checks that what converts, and what runs the graph, are installed.

    Raises:
        ConversionError: one is not.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConversionError(
            f"ONNX needs what is not installed ({', '.join(missing)}): pip install '.[onnx]' && "
            "pip install --no-deps jax2onnx==0.17.1 (by itself it asks for an older Orbax)"
        )


def write_onnx(deployed: Deployed, directory: pathlib.Path, visible: int) -> None:
    """Writes the graph with its weights; the batch size is open.

    Args:
        deployed: the classifier.
        directory: where `model.onnx` is written; must exist.
        visible: patches K that are given of every image, with padding.

    Raises:
        ConversionError: as `check_converter`.
    """
    for name in ("jax2onnx", "onnx_ir"):  # a line for every library that is not installed
        logging.getLogger(name).setLevel(logging.ERROR)
    check_converter()
    import onnx  # pyright: ignore[reportMissingImports]
    from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]

    arguments = deployed.shapes("batch", visible)
    names = [["x", "keep"][i] for i in range(len(arguments))]
    graph = to_onnx(
        lambda *given: classify(deployed, *given),
        inputs=[jax.ShapeDtypeStruct(of.shape, of.dtype) for of in arguments],
        input_names=names,
        output_names=["probabilities"],
    )
    del graph.graph.value_info[:]
    onnx.save(graph, str(directory / FILE))  # pyright: ignore[reportAttributeAccessIssue]
