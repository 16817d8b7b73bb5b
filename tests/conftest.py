import os

import pytest
from hypothesis import settings

# Before JAX starts: eight CPU devices on one machine.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The first example of a property compiles, which takes longer than any deadline.
settings.register_profile("jist", settings(), deadline=None)
settings.load_profile("jist")


@pytest.fixture(scope="module")
def quick_compilation():
    """Faster, less optimised compilation, for modules that compile longer than they compute."""
    import jax  # not before its environment is set

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
