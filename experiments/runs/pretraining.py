"""Pre-training: the sizes of encoder and decoder, the options, the model before the first step."""

import dataclasses
import pathlib

from flax import nnx

from experiments.command.cli import Options
from experiments.command.errors import UsageError
from experiments.command.options import NaturalOptions, ProcessOptions
from experiments.runs import hub
from experiments.runs.images import COMPUTE_DTYPES
from jist.models import (
    MAE,
    DecoderConfig,
    Preprocessing,
    ViTConfig,
    load_encoder,
    load_mae,
    shipped_encoders,
)

# Encoder and decoder by size. Small images have small patches, whose pixels a narrow decoder can
# predict; that of `base` is the published one.
SIZES = {
    "nano": (ViTConfig.nano(), DecoderConfig(dim=64, depth=1, heads=2, mlp_dim=256)),
    "tiny": (ViTConfig.tiny(), DecoderConfig(dim=96, depth=4, heads=3, mlp_dim=384)),
    "small": (ViTConfig.small(), DecoderConfig(dim=192, depth=4, heads=3, mlp_dim=768)),
    "base": (ViTConfig.base(), DecoderConfig()),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainOptions(Options, NaturalOptions, ProcessOptions):
    """Options of pre-training."""

    dataset: str = "digits"
    """images:PATH (all images below a directory); or the training split, without labels, of digits,
    cifar10, resisc45, aid, eurosat, eurosat-ms, ucmerced, tfds:NAME[/CONFIG] (of TensorFlow
    Datasets), folder:PATH (one directory per class), or masked:PATH (written by
    experiments.mask_dataset; needs --natural-masks)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45, aid, ..."""
    encoder: str = "nano"
    """Size of a new encoder: nano, tiny, small (32-pixel images, patches of 4) or base (224, 16).
    Or a trained one to go on from: a shipped one's name, a directory, hf:OWNER/NAME; with its
    decoder if there is one."""
    image_size: int | None = None
    """Side of the images in pixels, if not the default of the encoder's size."""
    patch_size: int | None = None
    """Side of a patch in pixels, likewise."""
    mask_ratio: float = 0.75
    """Share of the patches that is removed."""
    least_crop: float = 0.2
    """Least area of a random crop, as a share of the image."""
    epochs: int = 800
    """How often every image is seen."""
    warmup: float = 0.05
    """Share of the steps that warm the learning rate up."""
    batch_size: int = 256
    """Images in a step, over all devices."""
    accumulate: int | None = None
    """Parts in which a batch is computed one after the other, to save memory; the result does not
    depend on it. By default the fastest number: one, except on CPUs."""
    base_lr: float = 1.5e-4
    """Learning rate for a batch of 256; it grows with the batch."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, applied to matrices."""
    dtype: str = "auto"
    """Compute type: float32, bfloat16, or auto (bfloat16 except on CPUs without AMX)."""
    resident_gb: float = 4.0
    """Images that take more than this many GB decoded are decoded again in every epoch. Every GPU
    holds a copy; on a CPU the copies of its cores, at most four, count together."""
    checkpoint_every: int = 5
    """Epochs between checkpoints."""
    picture_every: int = 25
    """Epochs between pictures of reconstructed training images, at the next checkpoint; 0: none."""
    seed: int = 0
    """Decides initialisation, order, views and masks."""
    run_dir: pathlib.Path = pathlib.Path("runs/pretrain")
    """Where results are written; the same directory resumes where it stopped."""


def build_mae(options: PretrainOptions, preprocessing: Preprocessing) -> MAE:
    """The untrained masked autoencoder of the options; `dtype` must not be auto."""
    shape = dataclasses.replace(new_shape(options), channels=len(preprocessing.mean))
    return MAE(
        shape,
        SIZES[options.encoder][1],
        dtype=COMPUTE_DTYPES[options.dtype],
        preprocessing=preprocessing,
        rngs=nnx.Rngs(options.seed),
    )


def new_shape(options: PretrainOptions) -> ViTConfig:
    """The shape of a new encoder, of colour images."""
    given = {"image_size": options.image_size, "patch_size": options.patch_size}
    given = {name: of for name, of in given.items() if of is not None}
    return dataclasses.replace(SIZES[options.encoder][0], **given)


def check_start(options: PretrainOptions) -> None:
    """Refuses what is neither a size nor an encoder, before images are looked for."""
    if options.dtype not in (*COMPUTE_DTYPES, "auto"):
        allowed = (*COMPUTE_DTYPES, "auto")
        raise UsageError(f"dtype must be one of {allowed}, got {options.dtype!r}")
    if options.encoder in SIZES:
        return
    for name in ("image_size", "patch_size"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"{name}={getattr(options, name)}: encoder={options.encoder} is trained already "
                f"and has its own; only a new encoder ({', '.join(SIZES)}) is made of any size"
            )
    found = hub.local(options.encoder)
    if found not in shipped_encoders() and not pathlib.Path(found).expanduser().is_dir():
        raise UsageError(
            f"encoder must be one of {(*SIZES, *shipped_encoders())}, a directory or "
            f"hf:OWNER/NAME, got {options.encoder!r}"
        )


def trained_mae(options: PretrainOptions) -> MAE | None:
    """The masked autoencoder to go on from, `dtype` must not be auto; None of a new one.

    Where no decoder is beside the encoder, an untrained one is taken: that of the size with as
    many blocks of the same width, else the published one.

    Raises:
        ValueError: as `jist.models.load_mae` and `load_encoder`.
    """
    if options.encoder in SIZES:
        return None
    found, dtype = hub.local(options.encoder), COMPUTE_DTYPES[options.dtype]
    if (pathlib.Path(found) / "decoder.safetensors").is_file():
        return load_mae(found, dtype=dtype)
    encoder = load_encoder(found, dtype=dtype)
    shape = encoder.config
    decoders = {(size.dim, size.depth): decoder for size, decoder in SIZES.values()}
    mae = MAE(
        shape,
        decoders.get((shape.dim, shape.depth)),
        dtype=dtype,
        preprocessing=encoder.preprocessing,
        rngs=nnx.Rngs(options.seed),
    )
    mae.encoder = encoder
    return mae
