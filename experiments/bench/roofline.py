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
from experiments.bench.race import JIST, Contest, Side

DTYPES = ("float32", "bfloat16")
# Side of the matrices, and how many products are in a run.
MATMUL = {"cpu": (2048, 4), "gpu": (8192, 30)}
# Numbers in each of the two arrays at least, and how often they are added in a run.
MEMORY = {"cpu": (1 << 26, 4), "gpu": (1 << 29, 30)}
NUMBER_BYTES = 4  # float32
PRODUCTS = "GFLOP/s"


def contests(device: str) -> Iterator[Contest]:
    """Matrix products in either compute type, then memory.

    Args:
        device: "cpu" or "gpu".
    """
    for dtype in DTYPES:
        yield product_contest(dtype, device, *MATMUL[device])
    numbers, count = MEMORY[device]
    yield memory_contest(device, max(numbers, 4 * last_cache_bytes() // (2 * NUMBER_BYTES)), count)


def matmul_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Floating-point operations per second of matrix products by compute type.

    Args:
        rows: results of the contests above, as `hold` returns them.
    """
    return {
        row["dtype"]: 1e9 * max(side["items_per_s"]["median"] for side in row["sides"].values())
        for row in rows
        if row["unit"] == PRODUCTS
    }


def add_shares(row: Mapping[str, Any], rates: Mapping[str, float]) -> None:
    """Notes with every side what share of the matrix product's rate it reaches.

    Args:
        row: a result, as `hold` returns it; sides get a `share_of_matmul` where the operations of
            an item and the rate of the side's compute type are known.
        rates: as `matmul_rates`.
    """
    for side in row["sides"].values():
        if side["flops_per_item"] is not None and side["dtype"] in rates:
            share = side["flops_per_item"] / rates[side["dtype"]]
            side["share_of_matmul"] = {k: share * v for k, v in side["items_per_s"].items()}


def product_contest(dtype: str, device: str, side: int, count: int) -> Contest:
    """`count` products of matrices [side, side] one after the other, as a contest."""
    work = 2 * count * side**3 / 1e9
    sides = {JIST: Side(matmul(dtype, side, count), work)}
    if has_torch():
        sides["torch"] = Side(_torch_matmul(dtype, device, side, count), work)
    return Contest(f"product of [{side}, {side}], {dtype}", PRODUCTS, sides, dtype=dtype)


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


def memory_contest(device: str, numbers: int, count: int) -> Contest:
    """Adds c y to x in its place, `count` times, arrays of so many numbers; as a contest."""
    work = 3 * NUMBER_BYTES * numbers * count / 1e9
    sides = {JIST: Side(_add(numbers, count), work)}
    if has_torch():
        sides["torch"] = Side(_torch_add(device, numbers, count), work)
    facts = {"bytes": 2 * NUMBER_BYTES * numbers, "last_cache_bytes": last_cache_bytes()}
    return Contest(f"x + c y of {numbers} numbers", "GB/s", sides, facts=facts)


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
