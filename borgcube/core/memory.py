"""Limits on the memory of our own processes. Linux counts address space (``RLIMIT_AS``).

A process that handles what a client chose takes a limit for itself before it begins: what
gets past every other bound then ends that process with a cause, not the machine. Only the soft
limit is set, so that a program which is started from there, such as a borg that works for a
client on this machine, can be given its own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_changing = threading.Lock()


def limit(count: int) -> None:
    """Let this process have at most ``count`` bytes of address space from now on.

    Never more than the hard limit that somebody else has set.
    """
    _few_arenas()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _few_arenas() -> None:
    """Have threads share what the C library reserves, which counts as address space: it takes
    64 MiB for each thread otherwise (mallopt(3), M_ARENA_MAX)."""
    try:
        ctypes.CDLL(None).mallopt(-8, 2)
    except (AttributeError, OSError):
        pass  # another C library than glibc


@contextmanager
def for_children(count: int | None = None) -> Iterator[None]:
    """Start a child in here that is to have a soft limit of its own, or none, whatever this
    process has. Meanwhile this process has that too."""
    with _changing:
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (before[1], before[1]))
        try:
            if count is not None:
                limit(count)
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def address_space() -> int:
    """Return the bytes of address space that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def of_machine() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error means that this process got no more memory; Python tells of a
    thread's stack that does not fit in another way."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    )
