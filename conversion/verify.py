"""Verification: PyTorch's model and jist's on the same images and the same kept patches."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from conversion.errors import ConversionError
from conversion.plan import Plan
from conversion.source import Source
from jist.masking import random_keep
from jist.models import load_encoder, load_mae, load_resnet

RATIOS = (0.0, 0.5, 0.75, 0.9)
IMAGES = 2
RESNET_SIDE = 224
# Relative to the norm of PyTorch's output, token by token.
TOLERANCES = {
    ("tokens", "float32"): 1e-5,
    ("tokens", "bfloat16"): 2e-2,
    ("mae", "float32"): 1e-5,
    ("resnet", "float32"): 1e-4,
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far two outputs are apart.

    Attributes:
        what: name of the output.
        ratio: the masking ratio; None where nothing is masked.
        dtype: jist's compute type; PyTorch's is always float32.
        absolute: largest absolute difference of two numbers.
        relative: largest norm of the difference of two vectors over that of PyTorch's vector.
        tolerance: the largest allowed value of `relative`.
    """

    what: str
    ratio: float | None
    dtype: str
    absolute: float
    relative: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within its tolerance."""
        return self.relative <= self.tolerance  # so is no NaN

    def __str__(self) -> str:
        ratio = "   -" if self.ratio is None else f"{self.ratio:4.2f}"
        verdict = "ok" if self.agrees else f"OVER {self.tolerance:g}"
        return (
            f"{self.what:<8} ratio {ratio}  {self.dtype:<8}  max abs {self.absolute:.2e}  "
            f"max rel {self.relative:.2e}  {verdict}"
        )


def difference(
    what: str, kind: str, ratio: float | None, dtype: str, ours: Any, theirs: Any
) -> Difference:
    """Compares vectors [..., D]; scalars are vectors of one number."""
    a = np.atleast_1d(np.asarray(ours, np.float64))
    b = np.atleast_1d(np.asarray(theirs, np.float64))
    norms = np.maximum(np.linalg.norm(b, axis=-1), np.finfo(np.float32).tiny)
    relative = np.max(np.linalg.norm(a - b, axis=-1) / norms)
    tolerance = TOLERANCES[kind, dtype]
    return Difference(what, ratio, dtype, float(np.max(np.abs(a - b))), float(relative), tolerance)


def compare(source: Source, plan: Plan, directory: pathlib.Path) -> list[Difference]:
    """Runs both models on random images, at every ratio, in float32 and bfloat16."""
    with jax.default_matmul_precision("highest"):
        if plan.encoder is None:
            return _compare_resnet(source, plan, directory)
        return _compare_mae(source, plan, directory)


def verify(
    source: Source, plan: Plan, directory: pathlib.Path, report: Callable[[str], None] = print
) -> None:
    """Prints every difference.

    Those in bfloat16 are printed for information only: their size depends on the weights, so they
    do not speak against a conversion that agrees in float32.

    Raises:
        ConversionError: one in float32 is over its tolerance, or PyTorch is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise ConversionError(
            "--verify runs the PyTorch model, and PyTorch is not installed: "
            "pip install -e '.[convert]'"
        ) from None
    differences = compare(source, plan, directory)
    for line in differences:
        report(f"verify   {line}")
    decisive = [line for line in differences if line.dtype == "float32"]
    over = sum(not line.agrees for line in decisive)
    if over:
        raise ConversionError(
            f"{over} of {len(decisive)} comparisons with PyTorch in float32 are over tolerance; "
            "nothing is written"
        )


def _images(side: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(IMAGES, side, side, channels)).astype(np.float32)


def _compare_mae(source: Source, plan: Plan, directory: pathlib.Path) -> list[Difference]:
    from conversion.torch_models import mae_runner

    assert plan.encoder is not None
    images, patches = _images(plan.encoder.image_size, plan.encoder.channels), plan.encoder.patches
    whole = plan.decoder is not None and plan.decoder["heads"] is not None
    encode = nnx.jit(lambda model, images, keep: model(images, keep))
    predict = nnx.jit(lambda model, images, keep: (model(images, keep), model.loss(images, keep)))
    keeps = {
        ratio: random_keep(jax.random.key(0), IMAGES, patches, ratio)
        for ratio in RATIOS
        if int(patches * (1 - ratio)) > 0
    }
    # One model after the other: a ViT-Huge is 2.5 GB each time.
    run = mae_runner(source, plan, decoder=whole)
    theirs = {ratio: run(images, np.asarray(keep)) for ratio, keep in keeps.items()}
    del run
    # PyTorch's convolution pads images by itself.
    border, side = plan.preprocessing.border, plan.encoder.image_size
    images = np.pad(images, [(0, 0), (border, 0), (border, 0), (0, 0)])[:, :side, :side]
    found = []
    for dtype in ("float32", "bfloat16"):
        encoder = load_encoder(directory, dtype=dtype)
        for ratio, keep in keeps.items():
            ours = encode(encoder, jnp.asarray(images), keep).astype(jnp.float32)
            for what, part in (("CLS", slice(0, 1)), ("tokens", slice(1, None))):
                pair = ours[:, part], theirs[ratio].tokens[:, part]
                found.append(difference(what, "tokens", ratio, dtype, *pair))
        del encoder
    mae = load_mae(directory) if whole else None
    for ratio, keep in keeps.items():
        if mae is not None and ratio > 0:
            pixels, loss = predict(mae, jnp.asarray(images), keep)
            output = theirs[ratio]
            found.append(difference("pixels", "mae", ratio, "float32", pixels, output.pixels))
            found.append(difference("loss", "mae", ratio, "float32", loss, output.loss))
    return found


def _compare_resnet(source: Source, plan: Plan, directory: pathlib.Path) -> list[Difference]:
    from conversion.torch_models import resnet_runner

    images = _images(RESNET_SIDE)
    theirs = resnet_runner(source, plan)(images)
    ours = nnx.jit(lambda model, images: model(images))(load_resnet(directory), images)
    return [difference("features", "resnet", None, "float32", ours, theirs)]
