import atexit
import functools
import gc
import itertools
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# Before JAX starts: eight CPU devices on one machine. XLA would cut every program into 32 parts, to
# compile them in as many threads; that takes a third longer where tests keep all cores busy.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
    + " --xla_cpu_parallel_codegen_split_count=1"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compiling is what takes the time, of programs that run a few times on a few numbers. So most of
# XLA's optimisations are left out (`fully_optimised` puts them back), and no program is compiled
# twice in a run: worker processes and the scripts that tests start find it on disk. A cache of
# one's own, named in the environment, is kept and makes the next run quicker still.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jist-tests-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Nor is every operation told from which lines of which files it came; a test's stack is deep.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# The first example of a property compiles, which takes longer than any deadline.
settings.register_profile("jist", settings(), deadline=None)
settings.load_profile("jist")


def pytest_xdist_auto_num_workers(config):
    """The whole suite takes the cores there are and one more, up to four.

    One more, because some tests wait for processes or links that they start. A few named files are
    not worth it: every worker process imports JAX, PyTorch and what the tests need.
    """
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return min(4, len(cores) + 1)


def pytest_collection_finish(session):
    """Python's collector leaves alone what was imported, and looks less often for the rest.

    It took a tenth of the time of all tests to find out that modules and types are still in use,
    and a twentieth to write messages that nobody reads.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # Flax 0.12 asks the new value of every variable for its sharding, which traced numbers refuse;
    # to say where they came from, JAX then looks through all that was traced before.
    from jax._src.interpreters import mlir, partial_eval  # not before its environment is set

    partial_eval.DynamicJaxprTracer._origin_msg = lambda self: ""
    # A context of MLIR knows 30 dialects; one after the other serves a hundred programs.
    made, make = itertools.count(), mlir.make_ir_context
    recent = functools.lru_cache(1)(lambda hundreds: make())
    mlir.make_ir_context = lambda: recent(next(made) // 100)


@pytest.fixture(scope="module")
def fully_optimised():
    """For modules whose programs are to be compiled as users compile them."""
    import jax  # not before its environment is set

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
