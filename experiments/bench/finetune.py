"""Fine-tuning on visible patches: jist beside the same network in PyTorch.

The encoder nano with random values and a linear head on CLS, a quarter of the patches of 32-pixel
images visible, batch 64, float32, AdamW with layer-wise learning-rate decay, smoothed labels: what
`experiments.finetune` trains, one worker in one compiled program. PyTorch has a ViT as timm's on
the visible patches, fused attention and fused AdamW, eager and through `torch.compile`
(`experiments.bench.torch_finetune`). All are given the same uint8 images and one mask for each:
random crops, and the drawing of masks, are left out. jist computes the last block for CLS alone,
PyTorch for all tokens, as its users would. First, from the same weights, five steps must lead to
the same mean loss and parameters. Aim: 1.2 times as fast as eager on a CPU.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util

from conversion.names import VIT_NAMINGS
from experiments.bench import rounds
from experiments.bench.hardware import has_torch
from experiments.bench.head import TORCH_DEVICES, TORCH_VARIANTS
from experiments.bench.pretrain_steps import smooth_images
from experiments.bench.rounds import Arrays, Other, Rounds, rounds_case
from experiments.bench.timing import Case
from jist.finetuning import adamw_by_depth
from jist.masking import random_keep
from jist.models import Classifier, MAEEncoder, ViTConfig
from jist.strategies import Centralized
from jist.tasks import classification

MASK_RATIO, CLASSES, BATCH, STEPS = 0.75, 10, 64, 40
# As experiments.finetune has them by default. Every step but the first changes something.
LEARNING_RATE, LAYER_DECAY, WEIGHT_DECAY, LABEL_SMOOTHING = 1e-3, 0.75, 0.05, 0.1
SCHEDULE, WARMUP = 1000, 2
# Adam divides a gradient by its own size, so rounding grows with every step.
CHECK_STEPS = 5
QUICK = ViTConfig(16, 4, dim=16, depth=2, heads=2, mlp_dim=48)
QUICK_BATCH, QUICK_STEPS = 8, 8


@dataclasses.dataclass(frozen=True)
class Work(rounds.Work):
    """The network, on x: "image", u8 [N, S, S, 3], and "keep", visible patches i32 [N, K].

    Attributes:
        encoder: what the encoder is called.
    """

    model: Classifier
    encoder: str

    @property
    def name(self) -> str:
        """Network and masks."""
        return f"fine-tuning, {self.encoder}, ratio {MASK_RATIO:g}"

    def arrays(self, params: Any) -> Arrays:
        """The parameters in the layout and in the order of their published names."""
        flat: dict[Any, Any] = traverse_util.flatten_dict(params["encoder"])
        arrays = {".".join(map(str, path)): np.asarray(array) for path, array in flat.items()}
        head = {name: np.asarray(array) for name, array in params["head"].items()}
        found = {"head.weight": head["kernel"].T, "head.bias": head["bias"]}
        for rule in VIT_NAMINGS[0].rules("encoder", self.model.encoder.config.depth):
            if rule.jist in arrays:  # positions are fixed
                found |= rule.to_source(arrays[rule.jist])
        return compared(found)


def compared(named: Mapping[str, np.ndarray]) -> Arrays:
    """What of the parameters is compared, by name: all that is trained but the biases of keys.

    Those change no output, since softmax does not feel them: their gradients are rounding alone,
    which Adam turns into steps of full length.
    """
    found = []
    for name, array in sorted(named.items()):
        if name.endswith("qkv.bias"):
            query, _, value = np.split(array, 3)
            found += [query, value]
        elif name != "pos_embed":
            found.append(array)
    return found


def make_work(encoder: str, config: ViTConfig, *, batch: int, steps: int) -> Work:
    """A network, and an image with a mask and a class for every place in some steps."""
    count, generator = batch * steps, np.random.default_rng(0)
    model = Classifier(MAEEncoder(config, rngs=nnx.Rngs(0)), CLASSES, rngs=nnx.Rngs(1))
    keep = random_keep(jax.random.key(0), count, config.patches, MASK_RATIO)
    x = {"image": smooth_images(generator, count, config.image_size), "keep": np.asarray(keep)}
    y = generator.integers(0, CLASSES, count).astype(np.int32)
    return Work(model, batch, x, y, encoder)


def cases(device: str, *, quick: bool = False, compiled: bool = True) -> Iterator[Case]:
    """The one case.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take a small network and few steps of few images.
        compiled: whether PyTorch runs through `torch.compile` as well.

    Raises:
        RuntimeError: a variant does other work.
    """
    if quick:
        work = make_work("a small encoder", QUICK, batch=QUICK_BATCH, steps=QUICK_STEPS)
    else:
        work = make_work("nano", ViTConfig.nano(), batch=BATCH, steps=STEPS)
    yield finetune_case(work, device, compiled)


def finetune_case(work: Work, device: str, compiled: bool) -> Case:
    """Steps on all images by all variants; arguments and errors as of `cases`."""
    optimizer = adamw_by_depth(
        LEARNING_RATE,
        depth=work.model.encoder.config.depth,
        layer_decay=LAYER_DECAY,
        steps=SCHEDULE,
        warmup_steps=WARMUP,
        weight_decay=WEIGHT_DECAY,
    )
    loss = classification(label_smoothing=LABEL_SMOOTHING).loss
    steps = len(work.y) // work.batch
    strategy = Centralized(work.model, optimizer, local_steps=steps, loss=loss)
    others = {
        name: functools.partial(_torch_variant, work, device, through)
        for name, through in TORCH_VARIANTS.items()
        if has_torch() and (compiled or not through)
    }
    order = work.order(1, steps)
    return rounds_case(Rounds(strategy, work), order, others, check_steps=CHECK_STEPS)


def _torch_variant(work: Work, device: str, compiled: bool) -> Other:
    from experiments.bench.torch_finetune import TorchFinetuning

    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP, SCHEDULE)
    torch = TorchFinetuning(
        *(work.model, work.x, work.y, np.asarray(schedule(jnp.arange(SCHEDULE))).tolist()),
        label_smoothing=LABEL_SMOOTHING,
        weight_decay=WEIGHT_DECAY,
        layer_decay=LAYER_DECAY,
        device=TORCH_DEVICES[device],
        compiled=compiled,
    )
    return lambda order: torch(order[0]), lambda: compared(torch.named())
