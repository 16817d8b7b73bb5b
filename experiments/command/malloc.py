"""How glibc handles freed memory; imports no JAX, because PyTorch's processes use it too."""

import ctypes
import sys

# Names of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed() -> None:
    """Makes this process reuse the memory that it frees, large pieces too.

    glibc gets large blocks from the operating system and returns them as soon as they are freed, so
    a program that allocates them in every step takes a page fault for every 4 KB that it touches.
    Here they stay on the heap. The resident memory of the process stays at its peak.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not every C library of Linux has it
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
