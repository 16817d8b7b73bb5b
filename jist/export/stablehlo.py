"""A classifier as a program of StableHLO, which JAX runs without jist."""

import pathlib

import jax
from jax import export

from jist.export.classify import Deployed, classify

FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda")


def write_stablehlo(deployed: Deployed, directory: pathlib.Path) -> None:
    """Writes the program with its weights; batch size and number of visible patches are open.

    `jax.export.deserialize` reads it, of this version of JAX and of later ones for six months.

    Args:
        deployed: the classifier.
        directory: where `model.stablehlo` is written; must exist.
    """
    batch, visible = export.symbolic_shape("batch, visible")
    program = jax.jit(lambda *arguments: classify(deployed, *arguments))
    exported = export.export(program, platforms=PLATFORMS)(*deployed.shapes(batch, visible))
    (directory / FILE).write_bytes(exported.serialize())
