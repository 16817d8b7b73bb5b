"""A classifier as arrays under plain names, for programs in any language."""

import pathlib

import numpy as np

from jist.export.classify import Deployed
from jist.models import MAEEncoder, ResNet50, save_encoder, save_resnet
from jist.models.storage import write_arrays

FILE = "head.safetensors"


def write_tensors(deployed: Deployed, directory: pathlib.Path) -> None:
    """Writes `head.safetensors` and, where there is one, the encoder.

    The head's arrays are `0.kernel` [inputs, outputs], `0.bias` [outputs], `1.kernel` and so on;
    between two layers is a ReLU. `encoder/` is as every script and `python -m conversion` take it.

    Args:
        deployed: the classifier.
        directory: where both are written; must exist.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, (kernel, bias) in enumerate(deployed.layers):
        arrays |= {f"{number}.kernel": np.ascontiguousarray(kernel), f"{number}.bias": bias}
    write_arrays(arrays, directory / FILE)
    if isinstance(deployed.encoder, MAEEncoder):
        save_encoder(deployed.encoder, directory / "encoder")
    elif isinstance(deployed.encoder, ResNet50):
        save_resnet(deployed.encoder, directory / "encoder")
