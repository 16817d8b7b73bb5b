"""The PyTorch model of a source, ready to run: the reference, or that of `transformers`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from conversion import reference, reference_sensors
from conversion.errors import ConversionError
from conversion.export import huggingface_config
from conversion.plan import Plan
from conversion.source import Source
from jist.models import weights


@dataclasses.dataclass(frozen=True)
class Output:
    """Tokens [B, 1 + K, D]; pixels [B, L, p²·3] and loss, where there is a decoder."""

    tokens: np.ndarray
    pixels: np.ndarray | None = None
    loss: np.ndarray | None = None


def mae_runner(
    source: Source, plan: Plan, *, decoder: bool
) -> Callable[[np.ndarray, np.ndarray], Output]:
    """The source's masked autoencoder, of images [B, H, W, 3] and kept patches [B, K]."""
    if source.original is not None:
        if plan.wavelengths is not None:
            return _reference_wavelengths(source.original, plan, plan.wavelengths)
        return _reference_sequence(source.original, plan)
    if plan.naming.family in ("facebook", "dinov2"):
        return _reference_mae(source, plan, decoder)
    if plan.naming.family == "dinov2-huggingface":
        return _transformers_dinov2(source, plan)
    return _transformers_mae(source, plan, decoder)


def resnet_runner(source: Source, plan: Plan) -> Callable[[np.ndarray], np.ndarray]:
    """The source's ResNet-50, of images [B, H, W, 3]."""
    state = _state(source)
    if plan.naming.family == "huggingface":
        transformers = _transformers()
        model = transformers.ResNetModel(transformers.ResNetConfig())
        state = {name.removeprefix("resnet."): tensor for name, tensor in state.items()}
        _load(model, state, ("classifier.",))
        return lambda images: _numpy(model(_torch(images)).pooler_output)[:, :, 0, 0]
    if plan.naming.name == "nvidia":
        state = {_torchvision_name(name): tensor for name, tensor in state.items()}
    resnet = reference.ResNet()
    _load(resnet, state, ("fc.",))
    return lambda images: _numpy(resnet.features(_torch(images)))


def _torchvision_name(name: str) -> str:
    if not name.startswith("layers."):
        return name
    _, stage, rest = name.split(".", 2)
    return f"layer{int(stage) + 1}.{rest}"


def _reference_mae(
    source: Source, plan: Plan, decoder: bool
) -> Callable[[np.ndarray, np.ndarray], Output]:
    e, d = plan.encoder, plan.decoder
    assert e is not None
    sizes = (d["dim"], d["depth"], d["heads"], d["mlp_dim"]) if d and decoder else None
    model = reference.MaskedAutoencoder(
        *(e.image_size, e.patch_size, e.dim, e.depth, e.heads, e.mlp_dim, e.layer_norm_eps),
        decoder=sizes,
        normalize_pixels=d["normalize_pixels"] if d else True,
        channels=e.channels,
        scaled=plan.naming.family == "dinov2",
    )
    state = _state(source)
    if plan.naming.name == "facebook-average":
        state = {
            name.replace("fc_norm.", "norm.", 1) if name.startswith("fc_norm.") else name: tensor
            for name, tensor in state.items()
        }
    unused = ("head.", "fc_norm.") if decoder else ("head.", "fc_norm.", "decoder_", "mask_token")
    _load(model, state, unused)
    if plan.ground_resolution is not None:
        positions = reference_sensors.scaled_positions(e.dim, e.grid, plan.ground_resolution)
        model.pos_embed.data = positions

    def run(images: np.ndarray, keep: np.ndarray) -> Output:
        pixels, kept = _torch(images), torch.from_numpy(keep.astype(np.int64))
        with torch.no_grad():
            tokens = model.encode(pixels, kept)
            if not decoder:
                return Output(tokens.numpy())
            predicted = model.decode(tokens, kept)
            if kept.shape[1] == model.length:
                return Output(tokens.numpy(), predicted.numpy())
            loss = model.loss(pixels, predicted, kept)
            return Output(tokens.numpy(), predicted.numpy(), loss.numpy())

    return run


def _reference_sequence(source: Source, plan: Plan) -> Callable[[np.ndarray, np.ndarray], Output]:
    """The encoder of sequences itself, of one frame."""
    e = plan.encoder
    assert e is not None
    state = {name.removeprefix("encoder."): tensor for name, tensor in _state(source).items()}
    model = reference_sensors.SequenceEncoder(
        *(e.image_size, e.patch_size, e.dim, e.depth, e.heads, e.mlp_dim, e.layer_norm_eps),
        channels=e.channels,
        tokens=state["pos_embed"].shape[1],
    )
    _load(model, state, ("decoder", "mask_token", "temporal_embed", "location_embed", "head."))
    return _tokens_of(model)


def _reference_wavelengths(
    source: Source, plan: Plan, wavelengths: tuple[float, ...]
) -> Callable[[np.ndarray, np.ndarray], Output]:
    """The encoder of any sensor, given the wavelengths of the bands."""
    e = plan.encoder
    assert e is not None
    model = reference_sensors.SensorEncoder(
        *(e.image_size, e.patch_size, e.dim, e.depth, e.heads, e.mlp_dim, e.layer_norm_eps),
        wavelengths=wavelengths,
        inner=source.tensors["patch_embed.fclayer.w1.weight"].shape[0],
    )
    state = _state(source)
    if "norm.weight" not in state:
        for name, plain in (("weight", torch.ones(e.dim)), ("bias", torch.zeros(e.dim))):
            state[f"norm.{name}"] = state.get(f"fc_norm.{name}", plain)
    _load(model, state, ("decoder", "mask_token", "projector", "head.", "fc_norm."))
    return _tokens_of(model)


def _tokens_of(
    model: reference.MaskedAutoencoder,
) -> Callable[[np.ndarray, np.ndarray], Output]:
    def run(images: np.ndarray, keep: np.ndarray) -> Output:
        with torch.no_grad():
            kept = torch.from_numpy(keep.astype(np.int64))
            return Output(model.encode(_torch(images), kept).numpy())

    return run


def _transformers_mae(
    source: Source, plan: Plan, decoder: bool
) -> Callable[[np.ndarray, np.ndarray], Output]:
    transformers = _transformers()
    assert plan.encoder is not None
    patches = plan.encoder.patches
    config = transformers.ViTMAEConfig(
        **huggingface_config(
            {
                "format": weights.FORMAT,
                "encoder": plan.encoder.as_json(),
                "decoder": plan.decoder,
            }
        )
    )
    kind = transformers.ViTMAEForPreTraining if decoder else transformers.ViTMAEModel
    model = kind.from_pretrained(None, config=config, state_dict=_state(source)).eval()
    encoder = model.vit if decoder else model

    def run(images: np.ndarray, keep: np.ndarray) -> Output:
        kept = keep.shape[1]
        # Half a patch more, so that its int(patches * (1 - ratio)) is `kept` despite rounding.
        encoder.embeddings.config.mask_ratio = max(0.0, 1 - (kept + 0.5) / patches)
        pixels, noise = _torch(images), torch.from_numpy(_noise(keep, patches))
        with torch.no_grad():
            tokens = _numpy(encoder(pixels, noise=noise).last_hidden_state)
            if not decoder:
                return Output(tokens)
            output = model(pixels, noise=noise)
            return Output(tokens, _numpy(output.logits), _numpy(output.loss))

    return run


def _transformers_dinov2(source: Source, plan: Plan) -> Callable[[np.ndarray, np.ndarray], Output]:
    """DINOv2, given the kept patches behind their embedding; itself it takes all."""
    transformers = _transformers()
    e = plan.encoder
    assert e is not None
    config = transformers.Dinov2Config(
        hidden_size=e.dim,
        num_hidden_layers=e.depth,
        num_attention_heads=e.heads,
        mlp_ratio=e.mlp_dim // e.dim,
        layer_norm_eps=e.layer_norm_eps,
        image_size=e.image_size,
        patch_size=e.patch_size,
    )
    state = {name.removeprefix("dinov2."): tensor for name, tensor in _state(source).items()}
    state = {name: of for name, of in state.items() if not name.startswith("classifier.")}
    model = transformers.Dinov2Model.from_pretrained(None, config=config, state_dict=state).eval()

    def run(images: np.ndarray, keep: np.ndarray) -> Output:
        with torch.no_grad():
            x = model.embeddings(_torch(images))
            kept = torch.from_numpy(keep.astype(np.int64))[:, :, None].expand(-1, -1, e.dim)
            x = torch.cat([x[:, :1], x[:, 1:].gather(1, kept)], dim=1)
            return Output(_numpy(model.layernorm(model.encoder(x).last_hidden_state)))

    return run


def _noise(keep: np.ndarray, patches: int) -> np.ndarray:
    """Noise whose ascending order begins with the kept patches, in theirs."""
    noise = np.full((len(keep), patches), float(patches), np.float32)
    noise += np.arange(patches, dtype=np.float32)
    np.put_along_axis(noise, keep, np.arange(keep.shape[1], dtype=np.float32)[None], axis=1)
    return noise


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor], unused: tuple[str, ...]) -> None:
    """Loads strictly, except for heads that the comparison does not use."""
    own = model.state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    for name, tensor in own.items():
        # Batch counters have no effect in evaluation, and some files lack them.
        if name.startswith(unused) or name.endswith("num_batches_tracked"):
            state.setdefault(name, tensor)
    model.load_state_dict(state)
    model.eval()


def _state(source: Source) -> dict[str, torch.Tensor]:
    arrays = {name: tensor.read() for name, tensor in source.tensors.items()}
    return {
        name: torch.from_numpy(np.array(a, a.dtype if a.dtype.kind == "i" else np.float32))
        for name, a in arrays.items()
    }


def _torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConversionError(
            "--verify of a Hugging Face source runs its own model, and transformers is not "
            "installed: pip install -e '.[convert]'"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
