"""The C library's allocator, set for processes that pass chunks of some MB through.

Called once at the start of gate and vault. Without it each chunk's buffers are mapped and
unmapped, and the kernel clears every page of them anew.
"""

from __future__ import annotations

import ctypes

# mallopt(3), glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEEP_BYTES = 48 << 20
MAPPED_ABOVE_BYTES = 32 << 20


def keep_large_buffers() -> None:
    """Let freed buffers be used again; does nothing where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
