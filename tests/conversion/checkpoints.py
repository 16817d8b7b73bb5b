"""Files as PyTorch writes them, of models with random but not trivial weights.

    python -m tests.conversion.checkpoints base build/vit_base.pth

writes a facebookresearch checkpoint of full size, for the measurements in experiments/results; the
other names are `base-decoder`, `large`, `huge`, `resnet50`, `dofa` (for red, green and blue), and
`base-hf` (a Hugging Face directory).
"""

import json
import sys

import torch
from safetensors.torch import save_file

from conversion import reference, reference_sensors

SIZES = {
    "base": {},
    "base-decoder": {"decoder": (512, 8, 16, 2048)},
    "large": {"dim": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096},
    "huge": {"patch_size": 14, "dim": 1280, "depth": 32, "heads": 16, "mlp_dim": 5120},
}


@torch.no_grad()
def randomize(model, seed=0):
    """Moves every tensor away from its initial value; keeps the outputs of a trained size."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor, scale):
        return scale * torch.randn(tensor.shape, generator=generator)

    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.ndim in (2, 4):
            tensor.copy_(noise(tensor, (2 / tensor[0].numel()) ** 0.5))
        elif tensor.ndim == 3:
            tensor.copy_(noise(tensor, 0.5))
        elif name.endswith("weight"):
            tensor.copy_(1 + noise(tensor, 0.2))
        else:
            tensor.copy_(noise(tensor, 0.2))
    return model.eval()


def mae(**sizes):
    """A masked autoencoder under facebookresearch's names."""
    return randomize(reference.MaskedAutoencoder(**sizes))


# A model small enough for every test; its tensors do not show the numbers of heads.
SMALL = {"image_size": 32, "patch_size": 8, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128}
DECODER = (32, 1, 4, 64)
DECODER_NAMES = ("decoder", "mask_token")


def encoder_state(model):
    return {k: v for k, v in model.state_dict().items() if not k.startswith(DECODER_NAMES)}


def average_state(model):
    """As facebookresearch saves a classifier over averaged patches: `fc_norm`, no `norm`."""
    state = {k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v
             for k, v in encoder_state(model).items()}  # fmt: skip
    return state | {"head.weight": torch.randn(10, 64), "head.bias": torch.randn(10)}


PROBE = {
    "head.0.running_mean": torch.randn(64),
    "head.0.running_var": torch.rand(64),
    "head.0.num_batches_tracked": torch.tensor(7),
    "head.1.weight": torch.randn(10, 64),
    "head.1.bias": torch.randn(10),
}
HEAD = {"head.weight": torch.randn(1000, 64), "head.bias": torch.randn(1000)}
FACEBOOK = {
    "wrapper": lambda m: {"model": m.state_dict(), "epoch": 3},
    "bare": lambda m: m.state_dict(),
    "encoder only": lambda m: {"model": encoder_state(m)},
    "distributed": lambda m: {
        "state_dict": {f"module.{k}": v for k, v in encoder_state(m).items()}
    },
    "fine-tuned": lambda m: {"model": encoder_state(m) | HEAD},
    "averaging": lambda m: {"model": average_state(m)},
    "linear probe": lambda m: {"model": encoder_state(m) | PROBE},
}


def hub_names(model):
    """State under the names of the files on the hub, which transformers 5 renames in memory."""
    state = {}
    for name, tensor in model.state_dict().items():
        for new, old in (
            ("vit.layers.", "vit.encoder.layer."),
            ("attention.o_proj", "attention.output.dense"),
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(new, old)
        state[name] = tensor
    return state


def write_directory(kind, model, directory):
    if kind == "single":
        model.save_pretrained(directory)
    elif kind == "sharded":
        model.save_pretrained(directory, max_shard_size="60KB")
        assert len(list(directory.glob("*.safetensors"))) > 2
    elif kind == "without decoder":
        model.vit.save_pretrained(directory)
    else:
        directory.mkdir()
        model.config.save_pretrained(directory)
        if kind == "bin":
            torch.save(hub_names(model), directory / "pytorch_model.bin")
        elif kind == "sharded bin":
            names = hub_names(model)
            halves = [dict(list(names.items())[i::2]) for i in range(2)]
            files = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)]
            for file, half in zip(files, halves, strict=True):
                torch.save(half, directory / file)
            index = {name: file for file, half in zip(files, halves, strict=True) for name in half}
            (directory / "pytorch_model.bin.index.json").write_text(
                json.dumps({"weight_map": index})
            )
        elif kind == "hub names":
            save_file(hub_names(model), directory / "model.safetensors")
        else:
            save_file(model.state_dict(), directory / "model.safetensors")


def main(name, path):
    """Writes a checkpoint of full size."""
    if name == "resnet50":
        torch.save(randomize(reference.ResNet()).state_dict(), path)
    elif name == "dofa":
        sizes = (224, 16, 768, 12, 12, 3072, 1e-6)
        model = reference_sensors.SensorEncoder(*sizes, wavelengths=(0.665, 0.56, 0.49))
        torch.save(randomize(model).state_dict(), path)
    elif name == "base-hf":
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        randomize(ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True))).save_pretrained(path)
    else:
        torch.save({"model": mae(**SIZES[name]).state_dict()}, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
