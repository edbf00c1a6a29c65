"""Memory that a tensor frees stays with the process, for the next tensor."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's ``mallopt``, as ``malloc.h`` numbers them."""


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, for all of this process; ``lcnet-rl`` starts with it.

    Otherwise glibc returns the largest tensors to the system as soon as they are freed, and with each new one the
    kernel clears all pages again: of a network's features, in every pass. Peak memory may rise, by fragmentation.

    Returns:
        Whether there is a glibc here.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
