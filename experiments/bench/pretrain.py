"""Steps of masked-autoencoder pre-training: jist beside the same model in PyTorch.

The same model, batch, precision and single device; PyTorch eager and through `torch.compile` (see
`experiments.bench.torch_mae`). All variants are given the same prepared views, uint8 images on the
device, and one mask for each: random crops and the drawing of masks, which `experiments.pretrain`
adds, are left out. First they must do the same work: from the same weights, 20 steps of AdamW in
float32, warm-up included, give losses within 1e-4 relative. Compilation, with the first step, is
timed apart. Aims: 1.3 times as fast as eager float32 on a CPU, 1.2 times as fast as compiled
bfloat16 on a GPU.
"""

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from experiments.bench.hardware import unless_uncompilable
from experiments.bench.pretrain_steps import check, make_work, step_flops
from experiments.bench.roofline import DTYPES
from experiments.bench.timing import Case, Variant, say, seconds
from experiments.command.errors import UsageError
from experiments.runs.pretraining import SIZES
from jist.features import exact_products
from jist.models import DecoderConfig, ViTConfig

Sizes = tuple[ViTConfig, DecoderConfig]

CHECK_STEPS = 20
# Encoder and decoder differ in every size, so that none can stand for another.
QUICK = (
    ViTConfig(16, 4, dim=16, depth=1, heads=2, mlp_dim=48),
    DecoderConfig(dim=8, depth=1, heads=4, mlp_dim=24),
)
QUICK_BATCH, QUICK_STEPS = 8, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """What the benchmark `pretrain` measures; the defaults take some minutes on 2 CPU cores."""

    encoder: str = "nano"
    """Size, as of experiments.pretrain: nano, tiny, small or base."""
    batch_size: int = 256
    """Images in a step."""
    steps: int = 10
    """Steps of each variant in a repeat."""
    dtype: str = "float32"
    """Compute type: float32 or bfloat16."""

    def __post_init__(self) -> None:
        for name, allowed in (("encoder", SIZES), ("dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                given = getattr(self, name)
                raise UsageError(f"{name} must be one of {(*allowed,)}, got {given!r}")
        for name in ("batch_size", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be positive, got {getattr(self, name)}")


def cases(
    device: str,
    *,
    quick: bool = False,
    compiled: bool = True,
    options: PretrainOptions | None = None,
) -> Iterator[Case]:
    """The one case.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take a small model and few steps of few images.
        compiled: whether PyTorch runs through `torch.compile` as well.
        options: what is pre-trained.

    Raises:
        RuntimeError: a variant does other work.
    """
    options = options or PretrainOptions()
    name, sizes = options.encoder, SIZES[options.encoder]
    if quick:
        options = dataclasses.replace(options, batch_size=QUICK_BATCH, steps=QUICK_STEPS)
        name, sizes = "a small model", QUICK
    with empty_caches():
        facts = check_work(sizes, options, device, compiled)
    with empty_caches(), exact_products(options.dtype):
        yield pretrain_case(name, sizes, options, device, compiled, facts)


@contextlib.contextmanager
def empty_caches() -> Iterator[None]:
    """Nothing is compiled yet, neither here nor on disk, since compilation is timed."""
    jax.clear_caches()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as caches:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = caches
        os.environ["TRITON_CACHE_DIR"] = os.path.join(caches, "triton")
        yield


def check_work(
    sizes: Sizes, options: PretrainOptions, device: str, compiled: bool
) -> dict[str, Any]:
    """The losses of all variants in some steps of float32, as `pretrain_steps.check` returns them.

    Args:
        sizes: of encoder and decoder.
        options: batch and compute type.
        device: "cpu" or "gpu".
        compiled: whether PyTorch runs through `torch.compile` as well.

    Raises:
        RuntimeError: they differ.
    """
    say(f"pre-training: {CHECK_STEPS} steps of all variants, to be compared")
    work = make_work(sizes, options.batch_size, CHECK_STEPS)
    with exact_products("float32"):
        return check(work.variants("float32", device, compiled), work.order)


def pretrain_case(
    name: str,
    sizes: Sizes,
    options: PretrainOptions,
    device: str,
    compiled: bool,
    facts: dict[str, Any],
) -> Case:
    """The variants after their first step.

    Args:
        name: what the model is called.
        sizes: of encoder and decoder.
        options: batch, steps and compute type.
        device: "cpu" or "gpu".
        compiled: whether PyTorch runs through `torch.compile` as well.
        facts: what the case is to say beside its times.
    """
    work = make_work(sizes, options.batch_size, 1 + options.steps)
    facts = dict(facts)
    variants = {}
    for variant, take in work.variants(options.dtype, device, compiled).items():
        say(f"pre-training, {name}: first step of {variant}")
        taken = unless_uncompilable(
            variant, functools.partial(seconds, functools.partial(take, work.order[:1]))
        )
        if isinstance(taken, str):
            facts[f"{variant} is left out"] = taken
            continue
        variants[variant] = Variant(
            functools.partial(take, work.order[1:]),
            options.steps * options.batch_size,
            first_run_s=taken,
        )
    return Case(
        f"pre-training, {name}, batch {options.batch_size}",
        "images/s",
        variants,
        flops=step_flops(*sizes, options.batch_size) / options.batch_size,
        facts=facts,
        dtype=options.dtype,
    )
