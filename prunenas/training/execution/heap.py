"""Memory that a process frees on a CPU, and whether it keeps it for what comes next."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters: malloc.h of glibc."""

_LARGEST_THRESHOLD = 32 * 2**20
"""What glibc takes at most for the second of them."""


def keep_freed() -> bool:
    """Let this process keep what memory it frees, from now on; return whether it does.

    Each step of a training frees all that it took, and the next takes as much again. glibc gives
    large pieces back to the system each time, which then clears every page anew: 4 to 9 % of a
    training's time on two cores. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    return bool(kept)
