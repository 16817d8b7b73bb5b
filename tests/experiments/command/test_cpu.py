import os
import platform
import subprocess
import sys

import pytest

from experiments.command.cpu import MOST_DEVICES
from jist.placement import available_cores

DEVICES = """
from experiments.command.cpu import make_cores_devices
make_cores_devices()
import jax
print(jax.device_count())
"""


def devices(**environment):
    """The number of devices in a fresh process, without the eight devices of this suite."""
    inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = [sys.executable, "-c", DEVICES]
    done = subprocess.run(
        run, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_every_core_is_a_device_where_nobody_asks_for_other():
    assert devices() == min(available_cores(), MOST_DEVICES)
    assert devices(XLA_FLAGS="--xla_force_host_platform_device_count=3") == 3
    assert devices(JAX_NUM_CPU_DEVICES="3") == 3


COUNT = """
import resource
import jax, jax.numpy as jnp
from experiments.command.cpu import keep_freed_memory
if {kept}:
    keep_freed_memory()

@jax.jit
def step(x):
    for _ in range(3):
        x = jax.lax.optimization_barrier(jnp.flip(x, 0))  # into memory of its own
    return x.sum()

x = jnp.ones((16, 2**20))
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# The least, because on a busy machine a step may start before the last one has let go.
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's malloc")
def test_a_step_takes_no_new_pages():
    # A process each, because neither setting can be taken back.
    faults = [
        int(
            subprocess.run(
                [sys.executable, "-c", COUNT.format(kept=kept)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for kept in (False, True)
    ]
    assert faults[0] > 5000  # of 4 KB each; otherwise this tests nothing
    assert faults[1] < faults[0] / 20
