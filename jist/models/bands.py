"""An encoder of fewer bands than it was trained on."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from jist.models.abstract import abstract
from jist.models.vit import MAEEncoder


def select_bands(encoder: MAEEncoder, bands: Sequence[str]) -> MAEEncoder:
    """The encoder for images that have some of its bands, in any order.

    The patch embedding keeps the columns of those bands and nothing is rescaled: the encoder sees
    what it would see if every other band were at its mean in every pixel.

    Args:
        encoder: an encoder whose preprocessing names its bands.
        bands: which of them, in the order of the images' channels.

    Raises:
        ValueError: it has no such band; both lists are named.
    """
    own = encoder.preprocessing
    lacking = [band for band in bands if band not in own.bands]
    if lacking or not bands:
        raise ValueError(
            f"bands {', '.join(bands)} are not all among the encoder's "
            f"({', '.join(own.bands) or 'it names none'}): {', '.join(lacking)} missing"
        )
    places = [own.bands.index(band) for band in bands]
    side, dim = encoder.config.patch_size, encoder.config.dim
    kernel = np.asarray(encoder.embed.kernel[...]).reshape(side**2, len(own.bands), dim)
    parts = {
        name: tuple(getattr(own, name)[place] for place in places)
        for name in ("mean", "std", "bands", "scale")
        if getattr(own, name)
    }
    fewer = abstract(
        MAEEncoder,
        dataclasses.replace(encoder.config, channels=len(places)),
        dtype=encoder.dtype,
        preprocessing=dataclasses.replace(own, **parts),
    )
    nnx.update(fewer, nnx.state(encoder, lambda path, _: path != ("embed", "kernel")))
    fewer.embed.kernel = nnx.Param(jax.device_put(kernel[:, places].reshape(-1, dim)))
    return fewer
