"""Flax NNX modules; independent of workers, image files and devices."""

from jist.models.abstract import as_shapes
from jist.models.bands import select_bands
from jist.models.classifier import Classifier
from jist.models.convolution import Convolution
from jist.models.decoder import DecoderConfig
from jist.models.group_norm import GroupNorm
from jist.models.mae import MAE
from jist.models.mlp import MLP
from jist.models.neurons import name_neurons, unnamed
from jist.models.preprocessing import Preprocessing
from jist.models.probe import LinearProbe
from jist.models.reconstruct import Reconstruct
from jist.models.resnet import ResNet50
from jist.models.resnet18 import ResNet18
from jist.models.shipped import shipped_encoders
from jist.models.sparse_mlp import SparseMLP
from jist.models.stack import Stack
from jist.models.standardize import Scale, Standardize, Statistic, calibrate
from jist.models.vgg import VGG12
from jist.models.vit import MAEEncoder, ViTConfig
from jist.models.weights import (
    Encoder,
    digest,
    load_any_encoder,
    load_encoder,
    load_mae,
    load_resnet,
    read_preprocessing,
    save_encoder,
    save_mae,
    save_resnet,
)
from jist.models.whole_images import ImageClassifier

__all__ = [
    "MAE",
    "MLP",
    "VGG12",
    "Classifier",
    "Convolution",
    "DecoderConfig",
    "Encoder",
    "GroupNorm",
    "ImageClassifier",
    "LinearProbe",
    "MAEEncoder",
    "Preprocessing",
    "Reconstruct",
    "ResNet18",
    "ResNet50",
    "Scale",
    "SparseMLP",
    "Stack",
    "Standardize",
    "Statistic",
    "ViTConfig",
    "as_shapes",
    "calibrate",
    "digest",
    "load_any_encoder",
    "load_encoder",
    "load_mae",
    "load_resnet",
    "name_neurons",
    "read_preprocessing",
    "save_encoder",
    "save_mae",
    "save_resnet",
    "select_bands",
    "shipped_encoders",
    "unnamed",
]
