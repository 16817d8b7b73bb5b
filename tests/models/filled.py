"""Modules with random tensors, without compiling a program for every shape that is drawn."""

import math
import pathlib

import numpy as np
from flax import nnx

from jist.models.storage import fill, tensors


def he(shape):
    """The deviation of weights [..., outputs] that keeps the size of values; 0 of others."""
    return math.sqrt(2 / math.prod(shape[:-1])) if len(shape) > 1 else 0.0


def filled(build, seed=0, deviation=lambda shape: 0.1):
    """The module that `build` makes, its tensors normal around their usual values."""
    model = nnx.eval_shape(build)
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, leaf in tensors(model).items():
        centre = 1.0 if name.endswith(("scale", "var")) else 0.0
        arrays[name] = rng.normal(centre, deviation(leaf.shape), leaf.shape).astype(np.float32)
    fill(model, arrays, pathlib.Path("random"))
    return model
