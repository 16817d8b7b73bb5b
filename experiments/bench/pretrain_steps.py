"""The same steps of masked-autoencoder pre-training in jist and in PyTorch.

The same initial weights, images, masks, order and learning rates; `check` says whether the losses
are the same too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from experiments.bench.hardware import has_torch, unless_uncompilable
from experiments.bench.timing import say
from jist.masking import patches_kept, random_keep
from jist.models import MAE, DecoderConfig, ViTConfig
from jist.placement import batch_mesh
from jist.pretraining import Pretraining, adamw

MASK_RATIO = 0.75
BASE_LR = 1e-3
WEIGHT_DECAY = 0.05
TOLERANCE = 1e-4

# Takes steps on the rows [steps, B] of the images; the losses [steps], once they are known.
Steps = Callable[[np.ndarray], np.ndarray]


class GivenViews(Pretraining):
    """Pre-training on images as they are, each with the mask that is given for it.

    Args:
        keep: kept patches of each image [N, K].
        *arguments: as of `Pretraining`.
        **options: likewise.
    """

    def __init__(self, keep: np.ndarray, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._keep = jnp.asarray(keep)

    def _masked_views(
        self, images: Array, rows: Int[Array, " batch"], keys: Array
    ) -> tuple[Array, ...]:
        return images[rows], self._keep[rows]


@dataclasses.dataclass(frozen=True)
class Work:
    """What every variant does alike.

    Attributes:
        mae: builds the model with its initial weights, of a compute type.
        images: pixels [N, S, S, 3], u8.
        keep: kept patches of each [N, K].
        order: the images of each step [steps, B].
    """

    mae: Callable[[str], MAE]
    images: np.ndarray
    keep: np.ndarray
    order: np.ndarray

    def variants(self, dtype: str, device: str, compiled: bool) -> dict[str, Steps]:
        """Every variant before its first step, jist first."""
        steps, batch = self.order.shape
        optimizer, learning_rate = adamw(
            BASE_LR, batch, steps=steps, warmup_steps=steps // 5, weight_decay=WEIGHT_DECAY
        )
        # One GPU, as PyTorch takes; of a CPU all cores.
        mesh = batch_mesh(batch, jax.devices() if device == "cpu" else jax.devices()[:1])
        pretraining = GivenViews(
            self.keep, self.mae(dtype), optimizer, mask_ratio=MASK_RATIO, mesh=mesh
        )
        state, images = pretraining.init(0), pretraining.place(self.images)

        def jist(order: np.ndarray) -> np.ndarray:
            nonlocal state
            losses = []
            for rows in order:
                state, loss = pretraining.step(state, images, rows)
                losses.append(loss)
            jax.block_until_ready(state.params)
            return np.asarray(jax.device_get(losses))

        variants: dict[str, Steps] = {"jist": jist}
        if not has_torch():
            return variants
        from experiments.bench.torch_mae import pretraining_steps

        rates = np.asarray(learning_rate(jnp.arange(steps))).tolist()
        for name in ("torch eager", "torch compiled")[: 1 + compiled]:
            variants[name] = pretraining_steps(
                self.mae("float32"),
                *(self.images, self.keep, rates),
                weight_decay=WEIGHT_DECAY,
                dtype=dtype,
                device={"cpu": "cpu", "gpu": "cuda"}[device],
                compiled=name == "torch compiled",
            )
        return variants


def make_work(sizes: tuple[ViTConfig, DecoderConfig], batch_size: int, steps: int) -> Work:
    """Smooth coloured images, of which something can be learned, and four batches of them."""
    config, decoder = sizes
    generator = np.random.default_rng(0)
    count = 4 * batch_size
    images = smooth_images(generator, count, config.image_size)
    order = np.concatenate([generator.permutation(count) for _ in range(steps // 4 + 1)])
    return Work(
        mae=lambda dtype: MAE(config, decoder, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)),
        images=images,
        keep=np.asarray(random_keep(jax.random.key(0), count, config.patches, MASK_RATIO)),
        order=order.astype(np.int32).reshape(-1, batch_size)[:steps],
    )


def smooth_images(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Images [count, side, side, 3], u8, of four by four colours with a little noise."""
    colours = jnp.asarray(generator.uniform(0, 255, (count, 4, 4, 3)))
    images = jax.image.resize(colours, (count, side, side, 3), "linear")
    return np.asarray(images + generator.normal(0, 4, images.shape)).clip(0, 255).astype(np.uint8)


def check(variants: dict[str, Steps], order: np.ndarray) -> dict[str, Any]:
    """The losses of every variant, and the greatest relative difference from those of jist.

    Variants that `torch.compile` fails to compile are `left_out`.

    Raises:
        RuntimeError: it is more than `TOLERANCE`; the variants do different work.
    """
    losses, left_out, differences = {}, {}, {}
    for name, steps in variants.items():
        say(f"pre-training: compiling and checking {name}, {len(order)} steps")
        found = unless_uncompilable(name, functools.partial(steps, order))
        if isinstance(found, str):
            left_out[name] = found
        else:
            losses[name] = found.astype(float)
    for name in losses:
        relative = np.abs(losses[name] / losses["jist"] - 1)
        differences[name] = float(relative.max())
        if not (relative <= TOLERANCE).all():
            step = int(np.argmax(~(relative <= TOLERANCE)))
            raise RuntimeError(
                f"the loss of {name} at step {step} is {losses[name][step]:.7g}, that of jist "
                f"{losses['jist'][step]:.7g}: more than {TOLERANCE:g} apart, so the two do not do "
                "the same work and their times say nothing"
            )
    return {
        "losses": {name: list(values) for name, values in losses.items()},
        "differences": differences,
        "left_out": left_out,
    }


def step_flops(encoder: ViTConfig, decoder: DecoderConfig, batch_size: int) -> int:
    """Operations of the matrix products that a step needs: forward, and twice that backward.

    2 for each multiplication and addition; of the patches themselves no gradient is taken. The
    decoder's last block answers for the missing patches alone, since no loss sees the others;
    PyTorch's variant computes them all the same.
    """
    pixels, seen = 3 * encoder.patch_size**2, patches_kept(encoder.patches, MASK_RATIO)
    missing = encoder.patches - seen

    def block(tokens: int, wanted: int, shape: ViTConfig | DecoderConfig) -> int:
        linear = 2 * tokens * shape.dim + wanted * (2 * shape.dim + 2 * shape.mlp_dim)
        return shape.dim * (linear + 2 * wanted * tokens)

    embed = seen * pixels * encoder.dim
    rest = encoder.depth * block(1 + seen, 1 + seen, encoder)
    rest += (1 + seen) * encoder.dim * decoder.dim
    rest += (decoder.depth - 1) * block(1 + encoder.patches, 1 + encoder.patches, decoder)
    rest += block(1 + encoder.patches, missing, decoder) + missing * decoder.dim * pixels
    return 2 * batch_size * (2 * embed + 3 * rest)
