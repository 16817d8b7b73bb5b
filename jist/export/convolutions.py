"""Networks of convolutions as tensors under torchvision's names, in PyTorch's layouts.

A ResNet-18 has the names of `torchvision.models.resnet18`, a VGG-12 those of
`torchvision.models.VGG(make_layers(cfg, batch_norm=True))`, so that `load_state_dict` takes them.
The statistics of a VGG's dense part are folded into its layers. What is built otherwise than there
is said by `architecture`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from jist.export.folded import folded_layers
from jist.models import VGG12, Convolution, ResNet18
from jist.models.resnet18 import BasicBlock
from jist.models.stack import Stack

# Modules from one linear layer of torchvision's VGG to the next: ReLU and Dropout lie between.
LATER = 3


def architecture(network: nnx.Module) -> dict[str, Any]:
    """What a program in PyTorch must know to build a network, beside torchvision's definition.

    Raises:
        ValueError: it is neither a ResNet-18 nor a VGG-12.
    """
    if isinstance(network, ResNet18):
        width = network.conv.out_features
        stem = {"kernel": 3, "stride": 1} if network.small else {"kernel": 7, "stride": 2}
        stem |= {"padding": stem["kernel"] // 2, "maxpool": not network.small}
        return {"model": "resnet18", "width": width, "stem": stem}
    layers: list[int | str] = []
    channels = iter(layer.out_features for layer in _vgg(network).convolutions)
    for step in _vgg(network).steps:
        layers += [*(next(channels) for _ in step), "M"]
    return {"model": "vgg", "cfg": layers, "batch_norm": True, "avgpool": False}


def torch_tensors(network: nnx.Module) -> dict[str, Float[np.ndarray, "..."]]:
    """All parameters and running averages of a trained network, float32.

    Raises:
        ValueError: it is neither a ResNet-18 nor a VGG-12.
    """
    found = _of_resnet(network) if isinstance(network, ResNet18) else _of_vgg(_vgg(network))
    return {name: np.array(array, np.float32, order="C") for name, array in found}


def _vgg(network: nnx.Module) -> VGG12:
    if not isinstance(network, VGG12):
        raise ValueError(f"network must be a ResNet18 or a VGG12, got {type(network).__name__}")
    return network


def _of_resnet(network: ResNet18) -> Iterator[tuple[str, np.ndarray]]:
    yield from _convolution("conv1", network.conv)
    yield from _norm("bn1", network.norm)
    blocks = [block for part in network.parts for block in _blocks(part)]
    for number, block in enumerate(blocks):
        name = f"layer{number // 2 + 1}.{number % 2}"
        for n, (convolution, norm) in enumerate(
            ((block.conv1, block.norm1), (block.conv2, block.norm2)), start=1
        ):
            yield from _convolution(f"{name}.conv{n}", convolution)
            yield from _norm(f"{name}.bn{n}", norm)
        if block.projects:
            yield from _convolution(f"{name}.downsample.0", block.shortcut_conv)
            yield from _norm(f"{name}.downsample.1", block.shortcut_norm)
    yield "fc.weight", np.asarray(network.head.kernel[...]).T
    assert network.head.bias is not None
    yield "fc.bias", np.asarray(network.head.bias[...])


def _blocks(part: nnx.Module) -> Iterator[BasicBlock]:
    if not isinstance(part, Stack):
        assert isinstance(part, BasicBlock)
        yield part
        return
    assert isinstance(part.each, BasicBlock)
    graphdef, state = nnx.split(part.each)
    for number in range(jax.tree.leaves(state)[0].shape[0]):
        yield nnx.merge(graphdef, jax.tree.map(lambda leaf, n=number: leaf[n], state))


def _of_vgg(network: VGG12) -> Iterator[tuple[str, np.ndarray]]:
    place, layers = 0, iter(zip(network.convolutions, network.norms, strict=True))
    for step in network.steps:
        for _ in step:
            convolution, norm = next(layers)
            yield from _convolution(f"features.{place}", convolution)
            # Torchvision's have biases in front of their BatchNorm.
            yield f"features.{place}.bias", np.zeros(convolution.out_features)
            yield from _norm(f"features.{place + 1}", norm)
            place += 3  # and a ReLU
        place += 1  # pooling
    channels = network.convolutions[-1].out_features
    for number, (kernel, bias) in enumerate(folded_layers(network.dense)):
        if number == 0:  # of what lies [H, W, C] here and [C, H, W] there
            side = round((len(kernel) / channels) ** 0.5)
            by_place = kernel.reshape(side, side, channels, -1)
            kernel = by_place.transpose(2, 0, 1, 3).reshape(kernel.shape)
        yield f"classifier.{LATER * number}.weight", kernel.T
        yield f"classifier.{LATER * number}.bias", bias


def _convolution(name: str, layer: Convolution) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}.weight", np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1)


def _norm(name: str, layer: nnx.BatchNorm) -> Iterator[tuple[str, np.ndarray]]:
    assert layer.scale is not None
    assert layer.bias is not None
    yield f"{name}.weight", np.asarray(layer.scale[...])
    yield f"{name}.bias", np.asarray(layer.bias[...])
    yield f"{name}.running_mean", np.asarray(layer.mean[...])
    yield f"{name}.running_var", np.asarray(layer.var[...])
