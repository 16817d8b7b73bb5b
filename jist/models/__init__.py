"""Flax NNX modules; independent of workers, image files and devices."""

from jist.models.decoder import DecoderConfig as DecoderConfig
from jist.models.mae import MAE as MAE
from jist.models.mlp import MLP as MLP
from jist.models.preprocessing import Preprocessing as Preprocessing
from jist.models.probe import LinearProbe as LinearProbe
from jist.models.resnet import ResNet50 as ResNet50
from jist.models.shipped import shipped_encoders as shipped_encoders
from jist.models.standardize import Scale as Scale
from jist.models.standardize import Standardize as Standardize
from jist.models.standardize import Statistic as Statistic
from jist.models.standardize import calibrate as calibrate
from jist.models.vit import MAEEncoder as MAEEncoder
from jist.models.vit import ViTConfig as ViTConfig
from jist.models.weights import Encoder as Encoder
from jist.models.weights import digest as digest
from jist.models.weights import load_any_encoder as load_any_encoder
from jist.models.weights import load_encoder as load_encoder
from jist.models.weights import load_mae as load_mae
from jist.models.weights import load_resnet as load_resnet
from jist.models.weights import save_encoder as save_encoder
from jist.models.weights import save_mae as save_mae
from jist.models.weights import save_resnet as save_resnet
