"""Keeps the memory that a step of XLA:CPU gives back, for the next step to use."""

import ctypes
import sys

import jax

# Names of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Makes steps on the CPU reuse their memory; to be called before the first computation.

    XLA:CPU asks for a program's temporary memory anew at every execution, in one piece. glibc gets
    large pieces from the operating system and returns them at once, so each execution takes a page
    fault for every 4 KB that it touches. Here they stay on the heap, and programs are executed
    by the thread that calls them: only its heap is not made of small parts. The resident memory of
    the process stays at its peak. GPUs are not concerned.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not every C library of Linux has it
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
