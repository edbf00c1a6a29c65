"""Memory that a tensor frees stays with the process, for the next tensor."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's ``mallopt``, as ``malloc.h`` numbers them."""


def keep_freed_memory() -> bool:
    """Let glibc keep what the main thread frees, instead of returning it to the system.

    Features are the same megabytes in every pass, and of what the system gets back it has to clear all pages before
    they are handed out again. The process may hold more memory at its end than it uses. Every command of ``lcnet-rl``
    starts with it; a program of your own may.

    Returns:
        Whether there is a glibc here, and it does so.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
