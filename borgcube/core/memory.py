"""Limits on the memory of our own processes. Linux counts address space (``RLIMIT_AS``).

A process that handles what a client chose takes a limit for itself before it begins: what
gets past every other bound then ends that process with a cause, not the machine. Only the soft
limit is set, so that a program which is started from there, such as a borg that works for a
client on this machine, can be given its own.
"""

from __future__ import annotations

import os
import resource


def limit(count: int) -> None:
    """Let this process have at most ``count`` bytes of address space from now on.

    Never more than the hard limit that somebody else has set.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def lift(pid: int) -> None:
    """Take the soft limit from a child that was started by a limited process; it may be gone."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
    except (ProcessLookupError, PermissionError):
        pass  # over already; or another user's, who was given limits of their own


def address_space() -> int:
    """Return the bytes of address space that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
