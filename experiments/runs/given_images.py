"""Image files that a command line names, as the network of a run takes them.

They are decoded in threads, a batch ahead of the one that is encoded on all devices, as features
are extracted.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.bands import bands_seen
from experiments.runs.images import ImageInputs
from experiments.runs.masks import made_with, masks_of
from experiments.runs.network_images import NetworkInputs
from jist.data import (
    NaturalMasks,
    UnreadableImageError,
    read_image,
    read_with_missing,
    resize,
)
from jist.data.images.bands import Bands
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import NO_PATCH, natural_keep, nothing_visible
from jist.masking import FixedMask
from jist.models import Classifier, Encoder, MAEEncoder
from jist.placement import available_cores

Masks = FixedMask | NaturalMasks
_cls_vectors = nnx.jit(cls_vectors, static_argnames="pool")


def given_images(
    inputs: ImageInputs | NetworkInputs,
    paths: list[pathlib.Path],
    mask_ratio: float,
    *,
    other_ratio: float | None = None,
    draws: int = 1,
    batch_size: int = 64,
    skip_unreadable: bool = False,
) -> Iterator[tuple[list[str], Any]]:
    """Names of some images at a time, and what the network is called with, draw by draw of masks.

    Args:
        inputs: of the run.
        paths: the files.
        mask_ratio: that the network was trained with.
        other_ratio: replaces it.
        draws: fixed masks drawn for each image.
        batch_size: images at a time.
        skip_unreadable: leave out images that cannot be decoded, and name them.

    Raises:
        UsageError: masks are to be drawn, but the run has natural ones or none.
        UnreadableImageError: an image cannot be decoded.
        EmptyImageError: nothing of an image is visible.
    """
    encoder, masks, by_length = encoder_of(inputs), None, None
    if encoder is not None:
        encoder.eval()
        masks = masks_of_run(inputs.options, mask_ratio, encoder)
    asked = draws > 1 or other_ratio is not None
    if asked and not isinstance(masks, FixedMask):
        why = "its are natural" if masks else "its network sees images whole"
        raise UsageError(f"--draws and --mask-ratio need a run with drawn masks: {why}")
    if isinstance(masks, FixedMask) and other_ratio is not None:
        masks = dataclasses.replace(masks, ratio=other_ratio)
    if isinstance(inputs, ImageInputs) and isinstance(encoder, MAEEncoder):
        length = masks.kept if isinstance(masks, FixedMask) else None
        at_once = min(batch_size, len(paths))
        by_length = ByLength(encoder, at_once, length, pool=inputs.options.pool)
    batches = (paths[i : i + batch_size] for i in range(0, len(paths), batch_size))
    read = functools.partial(decoded, inputs, masks, bands_seen(inputs.options))
    for some in readable(batches, read, skip_unreadable):
        names, found = [str(path) for path, _ in some], [image for _, image in some]
        if isinstance(masks, NaturalMasks):
            yield names, encode_visible(inputs, masks, names, found, by_length)
        else:
            yield names, encode(inputs, masks, np.stack(found), draws, by_length)


def encoder_of(inputs: ImageInputs | NetworkInputs) -> Encoder | None:
    """The encoder that sees the images; None of a network without one."""
    if isinstance(inputs, ImageInputs):
        return inputs.encoder
    return inputs.model.encoder if isinstance(inputs.model, Classifier) else None


def readable(
    batches: Iterable[list[pathlib.Path]], read: Callable[[pathlib.Path], Any], skip: bool
) -> Iterator[list[tuple[pathlib.Path, Any]]]:
    """The images of each batch that can be decoded, if any; the next batch is decoded meanwhile.

    Args:
        batches: files.
        read: decodes one.
        skip: whether those that cannot be decoded are named and left out.

    Raises:
        UnreadableImageError: one cannot be decoded, in the order of the files.
    """
    pool = concurrent.futures.ThreadPoolExecutor(available_cores())
    waiting: collections.deque = collections.deque()
    try:
        for batch in (*batches, None):
            if batch is not None:
                waiting.append([(path, pool.submit(read, path)) for path in batch])
            while waiting and (batch is None or len(waiting) > 1):
                found = []
                for path, image in waiting.popleft():
                    try:
                        found.append((path, image.result()))
                    except UnreadableImageError as error:
                        if not skip:
                            raise
                        print(f"skipped: {error}", file=sys.stderr)
                if found:
                    yield found
    finally:
        pool.shutdown(cancel_futures=True)


def decoded(
    inputs: ImageInputs | NetworkInputs,
    masks: Masks | None,
    bands: Bands | None,
    path: pathlib.Path,
) -> Any:
    """An image, resized; under natural masks with what is missing of it.

    Args:
        inputs: of the run.
        masks: of its images.
        bands: that are read of them; None of colours.
        path: the file.

    Raises:
        UnreadableImageError: it cannot be decoded.
    """
    side, preprocessing = inputs.image_size, inputs.preprocessing
    if isinstance(masks, NaturalMasks):
        no_data = masks.no_data
        given = bands.read(path, no_data) if bands else read_with_missing(path, no_data)
        return masks.resize(*given, content_id(np.asarray(given[0])), side, preprocessing)
    pixels = bands.read(path)[0] if bands else read_image(path)
    return resize(pixels, side, preprocessing)


def content_id(pixels: np.ndarray) -> int:
    """An id of an image that depends on its pixels alone, for what is drawn by id."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def masks_of_run(images: ImageOptions, mask_ratio: float, encoder: Encoder) -> Masks:
    """The masks of the run's images; for a masked data set, those it was made with."""
    return made_with(images) or masks_of(images, mask_ratio, encoder)


def encode(
    inputs: ImageInputs | NetworkInputs,
    masks: FixedMask | None,
    pixels: np.ndarray,
    draws: int = 1,
    by_length: ByLength | None = None,
) -> Any:
    """What the network is called with for images [B, S, S, C] under fixed masks, draw by draw.

    The first draw has the seed of the masks, the others those that follow.

    Args:
        inputs: of the run.
        masks: None of a network that sees images whole.
        pixels: the images.
        draws: how often each image is seen.
        by_length: encodes, if the encoder sees patches.

    Returns:
        Arrays [draws · B, ...]: feature vectors, or pixels and masks.
    """
    if masks is None:
        assert isinstance(inputs, NetworkInputs)
        return inputs.given(pixels, None)
    ids = jnp.asarray([content_id(image) for image in pixels], jnp.uint32)
    seeds = [(masks.seed + draw) % 2**32 for draw in range(draws)]
    keeps = [dataclasses.replace(masks, seed=seed)(ids) for seed in seeds]
    keep = np.concatenate([np.asarray(keep) for keep in keeps])
    if isinstance(inputs, NetworkInputs):
        return inputs.given(np.concatenate([pixels] * draws), keep)
    if by_length is not None:
        return by_length(np.concatenate([pixels] * draws), keep)
    images, pool = jnp.asarray(pixels), inputs.options.pool
    found = [_cls_vectors(inputs.encoder, images, keep, pool=pool) for keep in keeps]
    return jnp.concatenate(found)


def encode_visible(
    inputs: ImageInputs | NetworkInputs,
    masks: NaturalMasks,
    names: list[str],
    found: list[tuple[np.ndarray, np.ndarray]],
    by_length: ByLength | None = None,
) -> Any:
    """The same of images, each with what is missing of it, under natural masks.

    Raises:
        UsageError: the encoder needs whole images.
        EmptyImageError: nothing of an image is visible.
    """
    encoder = encoder_of(inputs)
    if not isinstance(encoder, MAEEncoder):
        raise UsageError("the run's encoder needs whole images, so natural masks cannot be used")
    pixels, missing = (np.stack(parts) for parts in zip(*found, strict=True))
    keep = natural_keep(missing, encoder.config.patch_size, masks.max_missing)
    for name, row in zip(names, keep, strict=True):
        if row[0] == NO_PATCH:
            raise nothing_visible(name, "leave it out of --images")
    if isinstance(inputs, NetworkInputs):
        return inputs.given(pixels, keep)
    assert by_length is not None  # of every encoder of patches
    return by_length(pixels, keep)
