"""A classifier as arrays under plain names, for programs in any language."""

import pathlib

import jax.numpy as jnp
import numpy as np

from jist.export.classify import Deployed
from jist.export.convolutions import torch_tensors
from jist.models import MAEEncoder, ResNet50, save_encoder, save_resnet
from jist.models.storage import write_arrays

FILE, NETWORK = "head.safetensors", "network.safetensors"


def write_tensors(deployed: Deployed, directory: pathlib.Path) -> None:
    """Writes `head.safetensors` and, where there is one, the encoder; or `network.safetensors`.

    The latter is a whole network of convolutions, as of `torch_tensors`. The head's arrays are
    `0.kernel` [inputs, outputs], `0.bias` [outputs], `1.kernel` and so on; between two layers is a
    ReLU. `encoder/` is as every script and `python -m conversion` take it. As bfloat16, the head's
    kernels, all of the encoder, and a network's kernels are.

    Args:
        deployed: the classifier, with weights as float32 or bfloat16.
        directory: where they are written; must exist.

    Raises:
        ValueError: a network that is neither a ResNet-18 nor a VGG-12.
    """
    stored = jnp.dtype(deployed.weights)
    arrays: dict[str, np.ndarray] = {}
    if deployed.network is not None:
        for name, array in torch_tensors(deployed.network.network).items():
            arrays[name] = array.astype(stored) if array.ndim > 1 else array
        write_arrays(arrays, directory / NETWORK)
        return
    for number, (kernel, bias) in enumerate(deployed.layers):
        arrays |= {f"{number}.kernel": np.ascontiguousarray(kernel, stored), f"{number}.bias": bias}
    write_arrays(arrays, directory / FILE)
    if isinstance(deployed.encoder, MAEEncoder):
        save_encoder(deployed.encoder, directory / "encoder", stored_dtype=stored)
    elif isinstance(deployed.encoder, ResNet50):
        save_resnet(deployed.encoder, directory / "encoder", stored_dtype=stored)
