"""What the machine can do: multiply matrices, and move memory.

The product is of square matrices, one after the other, by XLA ("jist") and by PyTorch; float32 is
full float32 on GPUs too, no TF32. Memory is moved by x + c y in the place of x, which reads two
arrays and writes one, together at least four times as large as the last cache. (McCalpin's STREAM
asks for that of each; on a virtual machine that sees the cache of its whole host this would be more
memory than it can spare.) The greater of the two medians counts as the machine's rate, whichever
framework reached it, and other benchmarks are printed as a share of it.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.hardware import has_torch
from experiments.bench.timing import JIST, Case, Variant

DTYPES = ("float32", "bfloat16")
# Side of the matrices, and how many products are in a run.
MATMUL = {"cpu": (2048, 4), "gpu": (8192, 30)}
# Numbers in each of the two arrays at least, and how often they are added in a run.
MEMORY = {"cpu": (1 << 26, 4), "gpu": (1 << 29, 30)}
NUMBER_BYTES = 4  # float32
QUICK_MATMUL, QUICK_MEMORY = (64, 1), (1 << 12, 1)
PRODUCTS = "GFLOP/s"


def cases(device: str, *, quick: bool = False) -> Iterator[Case]:
    """Matrix products in either compute type, then memory.

    Args:
        device: "cpu" or "gpu".
        quick: whether to take small sizes.
    """
    for dtype in DTYPES:
        yield product_case(dtype, device, *(QUICK_MATMUL if quick else MATMUL[device]))
    numbers, count = QUICK_MEMORY if quick else MEMORY[device]
    beyond_caches = 0 if quick else 4 * last_cache_bytes() // (2 * NUMBER_BYTES)
    yield memory_case(device, max(numbers, beyond_caches), count)


def matmul_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Floating-point operations per second of matrix products by compute type.

    Args:
        rows: results of the cases above, as `measure` returns them.
    """
    return {
        row["dtype"]: 1e9
        * max(variant["items_per_s"]["median"] for variant in row["variants"].values())
        for row in rows
        if row["unit"] == PRODUCTS
    }


def add_shares(row: Mapping[str, Any], rates: Mapping[str, float]) -> None:
    """Notes with every variant what share of the matrix product's rate it reaches.

    Args:
        row: a result, as `measure` returns it; variants get a `share_of_matmul` where the
            operations of an item and the rate of the variant's compute type are known.
        rates: as `matmul_rates`.
    """
    for variant in row["variants"].values():
        if variant["flops_per_item"] is not None and variant["dtype"] in rates:
            share = variant["flops_per_item"] / rates[variant["dtype"]]
            variant["share_of_matmul"] = {k: share * v for k, v in variant["items_per_s"].items()}


def product_case(dtype: str, device: str, side: int, count: int) -> Case:
    """`count` products of matrices [side, side] one after the other, as a case."""
    work = 2 * count * side**3 / 1e9
    variants = {JIST: Variant(matmul(dtype, side, count), work)}
    if has_torch():
        variants["torch"] = Variant(_torch_matmul(dtype, device, side, count), work)
    return Case(f"product of [{side}, {side}], {dtype}", PRODUCTS, variants, dtype=dtype)


def matmul(dtype: str, side: int, count: int) -> Callable[[], object]:
    """Multiplies square matrices one after the other through XLA, compiled."""
    matrix = jax.random.normal(jax.random.key(0), (side, side)) / side**0.5  # so that none grows
    matrix = matrix.astype(dtype)
    if dtype == "float32":
        product = functools.partial(jnp.matmul, precision="highest")
    elif jax.default_backend() == "cpu":  # where only products in float32 use the matrix unit
        product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    else:
        product = jnp.matmul
    products = jax.jit(
        lambda x: jax.lax.fori_loop(0, count, lambda _, x: product(matrix, x).astype(dtype), x)
    )
    return lambda: jax.block_until_ready(products(matrix))


def _torch_matmul(dtype: str, device: str, side: int, count: int) -> Callable[[], object]:
    import torch

    where = {"cpu": "cpu", "gpu": "cuda"}[device]
    matrix = torch.randn(side, side, device=where).div(side**0.5).to(getattr(torch, dtype))
    buffers = torch.empty_like(matrix), torch.empty_like(matrix)

    def run() -> None:
        x = matrix
        for i in range(count):
            x = torch.mm(matrix, x, out=buffers[i % 2])
        if device == "gpu":
            torch.cuda.synchronize()

    return run


def memory_case(device: str, numbers: int, count: int) -> Case:
    """Adds c y to x in its place, `count` times, arrays of so many numbers; as a case."""
    work = 3 * NUMBER_BYTES * numbers * count / 1e9
    variants = {JIST: Variant(_add(numbers, count), work)}
    if has_torch():
        variants["torch"] = Variant(_torch_add(device, numbers, count), work)
    facts = {"bytes": 2 * NUMBER_BYTES * numbers, "last_cache_bytes": last_cache_bytes()}
    return Case(f"x + c y of {numbers} numbers", "GB/s", variants, facts=facts)


def _add(numbers: int, count: int) -> Callable[[], object]:
    # Donated: a new array each time would measure how fast the system hands out pages.
    add = jax.jit(lambda x, y, c: x + c * y, donate_argnums=0)
    x, y = jnp.ones(numbers), jnp.ones(numbers)

    def run() -> None:
        nonlocal x
        for _ in range(count):
            x = add(x, y, 1e-9)
        jax.block_until_ready(x)

    return run


def _torch_add(device: str, numbers: int, count: int) -> Callable[[], object]:
    import torch

    where = {"cpu": "cpu", "gpu": "cuda"}[device]
    x, y = torch.ones(numbers, device=where), torch.ones(numbers, device=where)

    def run() -> None:
        for _ in range(count):
            x.add_(y, alpha=1e-9)
        if device == "gpu":
            torch.cuda.synchronize()

    return run


def last_cache_bytes() -> int:
    """Size of the processor's last cache; 0 where the system does not tell."""
    files = pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((1024 * int(file.read_text().strip("K\n")) for file in files), default=0)
