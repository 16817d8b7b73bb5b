"""Outputs of PyTorch's models, the reference of every comparison."""

import numpy as np
import torch
from flax import nnx

# Compiled once for all encoders of one shape.
run = nnx.jit(lambda model, images, keep: model(images, keep))


def channels_first(images):
    return torch.from_numpy(np.array(images).transpose(0, 3, 1, 2).copy())


def indices(keep):
    return torch.from_numpy(np.array(keep, np.int64))


@torch.no_grad()
def tokens(model, images, keep):
    """Tokens of the reference, or of a model of transformers given noise that keeps `keep`."""
    if hasattr(model, "encode"):
        return model.encode(channels_first(images), indices(keep)).numpy()
    encoder = getattr(model, "vit", model)
    encoder.embeddings.config.mask_ratio = 0.5
    return encoder(channels_first(images), noise=noise(keep)).last_hidden_state.numpy()


def noise(keep, patches=16):
    """Noise: one for masked patches, ascending below one for kept ones."""
    values = np.ones((len(keep), patches), np.float32)
    np.put_along_axis(
        values, np.asarray(keep), np.arange(keep.shape[1], dtype=np.float32)[None] / 100, 1
    )
    return torch.from_numpy(values)


def relative(ours, theirs):
    """Largest norm of a token's difference over that of PyTorch's token."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.max(np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1))
