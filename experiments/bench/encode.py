"""Images to CLS vectors: jist's encoder beside Hugging Face's ViTMAE in PyTorch.

ViT-Base/16 at 224 pixels, random weights. Every variant is given the same uint8 images on the
device and the same kept patches, and makes normalised pixels, tokens and CLS vectors of them: jist
as `jist.features` compiles it, PyTorch eager and through `torch.compile`, in inference mode. First
the CLS vectors must agree; then each variant takes the batch at which it was fastest in a short
trial (`torch.compile`, which takes a minute for each, the one that was best for eager); then they
are timed in turns. float32 is full float32 on GPUs too, no TF32, as for users of jist. In the
float32 case, eager PyTorch runs in bfloat16 as well: the faster of its two types is what a user
would take.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from experiments.bench.hardware import has_torch, unless_uncompilable
from experiments.bench.roofline import DTYPES
from experiments.bench.timing import JIST, Case, Variant, say, seconds, timed
from jist.features import cls_vectors, place_weights
from jist.masking import random_keep
from jist.models import MAEEncoder, ViTConfig
from jist.placement import split_batch

RATIOS = (0.0, 0.5, 0.75)
# The batches that are tried; on a CPU more images where less of each is seen.
BATCHES = {
    "cpu": {0.0: (2, 4, 8, 16), 0.5: (4, 8, 16, 32), 0.75: (8, 16, 32, 64)},
    "gpu": {0.0: (128, 512), 0.5: (256, 1024), 0.75: (512, 2048)},
}
QUICK, QUICK_BATCHES = ViTConfig(32, 8, dim=16, depth=2, heads=2, mlp_dim=48), (2, 4)
# Greatest norm of a difference of two CLS vectors, over that of jist's.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}
EAGER, COMPILED, ROUNDED = "torch eager", "torch compiled", "torch eager, bfloat16"

# CLS vectors [B, D] of the first B images, once they are there; and how a variant gets ready for B.
Encode = Callable[[], np.ndarray]
Prepare = Callable[[int], Encode]


@dataclasses.dataclass(frozen=True)
class Work:
    """What every variant does alike.

    Attributes:
        encoder: of float32.
        images: [N, S, S, 3] uint8.
        keep: visible patches of each [N, K].
        device: "cpu" or "gpu".
    """

    encoder: MAEEncoder
    images: np.ndarray
    keep: np.ndarray
    device: str

    def jist(self, dtype: str) -> Prepare:
        """The variant of jist, of a compute type."""
        encoder = of_type(self.encoder, dtype)

        def prepare(batch: int) -> Encode:
            encode = jit_encode(encoder, batch)
            given = self.images[:batch], self.keep[:batch]
            images, keep = jax.device_put(given, split_batch(batch))
            return lambda: np.asarray(encode(images, keep))

        return prepare

    def torch(self, dtype: str, *, compiled: bool = False) -> Prepare:
        """PyTorch's variant."""
        import torch

        from experiments.bench import torch_encoder

        where, patches = torch_encoder.place(self.device), self.encoder.config.patches
        encode = torch_encoder.make_encode(
            self.encoder, self.keep.shape[1], dtype=dtype, device=self.device, compiled=compiled
        )

        def prepare(batch: int) -> Encode:
            images = torch.from_numpy(self.images[:batch]).to(where)
            noise = torch.from_numpy(torch_encoder.noise(self.keep[:batch], patches)).to(where)
            return lambda: encode(images, noise).cpu().numpy()

        return prepare


def cases(device: str, *, quick: bool = False, compiled: bool = True) -> Iterator[Case]:
    """A case for every masking ratio and compute type.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take a small encoder, and the last ratio alone.
        compiled: whether PyTorch runs through `torch.compile` as well.
    """
    encoder = random_encoder(QUICK if quick else ViTConfig.base())
    for ratio in RATIOS[-1:] if quick else RATIOS:
        batches = QUICK_BATCHES if quick else BATCHES[device][ratio]
        work = make_work(encoder, ratio, max(batches), device)
        for dtype in DTYPES:
            name = f"{'a small ViT' if quick else 'ViT-Base/16'}, ratio {ratio:g}, {dtype}"
            yield case(name, work, dtype, batches, compiled=compiled)


def case(
    name: str, work: Work, dtype: str, batches: Sequence[int], *, compiled: bool = True
) -> Case:
    """The variants with one compute type, after they have shown that they do the same work.

    Args:
        name: what the case is called.
        work: what they do.
        dtype: compute type.
        batches: numbers of images to choose from, ascending.
        compiled: whether PyTorch runs through `torch.compile` as well.

    Raises:
        RuntimeError: CLS vectors differ.
    """
    tried = {JIST: try_batches(work.jist(dtype), batches, dtype)}
    cls, facts = tried[JIST].cls, {}
    if has_torch():
        tried[EAGER] = try_batches(work.torch(dtype), batches, dtype)
        if dtype == "float32":
            tried[ROUNDED] = try_batches(work.torch("bfloat16"), batches, "bfloat16")
        if compiled:
            batch = tried[EAGER].batch
            found = unless_uncompilable(
                COMPILED, lambda: try_batches(work.torch(dtype, compiled=True), [batch], dtype)
            )
            if isinstance(found, Tried):
                tried[COMPILED] = found
            else:
                facts[f"{COMPILED} is left out"] = found
    return Case(
        name,
        "images/s",
        {variant: found.variant for variant, found in tried.items()},
        flops=image_flops(work.encoder.config, work.keep.shape[1]),
        facts=facts
        | {
            "difference": {
                variant: check(variant, found.cls[: batches[0]], cls, found.variant.dtype or dtype)
                for variant, found in tried.items()
                if variant != JIST
            },
            "batch": {variant: found.batch for variant, found in tried.items()},
            "images_per_s_of_batch": {variant: found.rates for variant, found in tried.items()},
        },
        dtype=dtype,
    )


@dataclasses.dataclass(frozen=True)
class Tried:
    """A variant after its batches were tried.

    Attributes:
        variant: with the batch at which it was fastest.
        cls: CLS vectors of the images of the smallest batch.
        rates: images per second by batch, of one run each.
    """

    variant: Variant
    cls: np.ndarray
    rates: dict[int, float]

    @property
    def batch(self) -> int:
        """The batch at which it was fastest."""
        return int(self.variant.items)


def try_batches(prepare: Prepare, batches: Sequence[int], dtype: str) -> Tried:
    """Runs a variant with every batch twice: to compile, and to see how fast it is."""
    variants, outputs, rates = {}, [], {}
    for batch in batches:
        say(f"encoding, {dtype}: compiling and trying a batch of {batch}")
        encode = prepare(batch)
        first, output = timed(encode)
        outputs.append(output)
        variants[batch] = Variant(encode, batch, dtype=dtype, first_run_s=first)
        rates[batch] = batch / seconds(encode)
    return Tried(variants[max(rates, key=rates.__getitem__)], outputs[0], rates)


def check(variant: str, cls: np.ndarray, reference: np.ndarray, dtype: str) -> float:
    """The greatest norm of a difference from jist's vectors [B, D], over the norm of jist's.

    Raises:
        RuntimeError: it is more than `TOLERANCES` of the compute type; the variants do different
            work.
    """
    norms = np.linalg.norm(cls - reference, axis=1) / np.linalg.norm(reference, axis=1)
    difference = float(norms.max())
    if not difference <= TOLERANCES[dtype]:  # NaN is no agreement
        raise RuntimeError(
            f"CLS vectors of {variant} are {difference:.2g} of their norm away from jist's, more "
            f"than {TOLERANCES[dtype]:g}: the two do not do the same work and their times say "
            "nothing"
        )
    return difference


def make_work(encoder: MAEEncoder, ratio: float, images: int, device: str) -> Work:
    """Images of noise, each with a random mask."""
    side, patches = encoder.config.image_size, encoder.config.patches
    noise = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), np.uint8)
    keep = np.asarray(random_keep(jax.random.key(0), images, patches, ratio))
    return Work(encoder, noise, keep, device)


def random_encoder(config: ViTConfig) -> MAEEncoder:
    """An encoder without weights that are equal at first, as biases are, lest they be mixed up."""
    encoder = MAEEncoder(config, rngs=nnx.Rngs(0))
    generator = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda x: x + 0.02 * generator.standard_normal(x.shape, np.float32),
        nnx.state(encoder, nnx.Param),
    )
    nnx.update(encoder, moved)
    return encoder


def of_type(encoder: MAEEncoder, dtype: str) -> MAEEncoder:
    """The encoder with another compute type and the same weights."""
    other = nnx.eval_shape(
        lambda: MAEEncoder(
            encoder.config,
            dtype=jnp.dtype(dtype),
            preprocessing=encoder.preprocessing,
            rngs=nnx.Rngs(0),
        )
    )
    nnx.update(other, nnx.state(encoder))
    return other


def jit_encode(encoder: MAEEncoder, batch: int) -> Callable[[Array, Array], Array]:
    """CLS vectors of a batch of images and their kept patches, compiled as `jist.features` does."""
    graphdef, weights = place_weights(encoder, batch)

    @jax.jit
    def encode(weights: Any, images: Array, keep: Array) -> Array:
        return cls_vectors(nnx.merge(graphdef, weights), images, keep)

    return lambda images, keep: encode(weights, images, keep)


def image_flops(config: ViTConfig, kept: int) -> int:
    """Operations that the CLS vector of an image needs of which `kept` patches are seen.

    Those of matrix products, 2 for each multiplication and addition. Only the kept patches are
    embedded, and the last block is that of CLS alone, but for its keys and values.
    """
    tokens, dim = 1 + kept, config.dim

    def block(wanted: int) -> int:
        queries_out_mlp = 2 * dim**2 + 2 * dim * config.mlp_dim
        return 2 * tokens * dim**2 + wanted * (queries_out_mlp + 2 * tokens * dim)

    embedding = kept * 3 * config.patch_size**2 * dim
    return 2 * (embedding + (config.depth - 1) * block(tokens) + block(1))
