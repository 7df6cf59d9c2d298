"""Take from the gate's process whatever it does not need, before it reads a client's byte.

Called once by ``gate/main.py``, after everything is imported and before the first thread.
Every layer stands alone: what the kernel or the machine does not offer is left out, and the
returned :class:`Confinement` says so. Nothing here knows what a gate does. The layers
themselves are in ``core/fence/layers.py``; see also prctl(2) and setrlimit(2).
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from borgcube.core.fence import layers

MEMORY_BYTES = 1 << 30
# poll(2) refuses more entries than this limit; descriptor 0 stays open, so no new one fits.
MAX_DESCRIPTORS = 1

CLONE_THREAD = 0x00010000
PROT_EXEC = 4
# What reading, writing, waiting, memory, threads and the end of a process take.
ALLOWED_CALLS = (
    "read", "readv", "write", "writev", "recvfrom", "recvmsg", "sendto", "sendmsg", "shutdown",
    "close", "fstat", "newfstatat", "lseek", "poll", "ppoll", "select", "pselect6",
    "futex", "futex_waitv", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity",
    "munmap", "mremap", "madvise", "brk", "membarrier",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
    "getpid", "gettid", "getrandom", "getrusage", "exit", "exit_group",
)  # fmt: skip


@dataclass(frozen=True)
class Confinement:
    """What took effect. ``landlock`` is the version of the kernel's, 0 for none."""

    landlock: int
    call_filter: bool
    memory_bytes: int

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data for the report to the worker."""
        return asdict(self)


def confine(*, keep: Iterable[int]) -> Confinement:
    """Leave this process its memory, its threads and the descriptors in ``keep``.

    Standard input, output and error become ``/dev/null``; all other descriptors are closed
    and the environment is emptied. Afterwards the process opens no file and no socket,
    starts no process and grows no file. Raises OSError when a limit that every Linux has
    cannot be set.
    """
    libc = layers.c_library()
    layers.close_all_but({*keep})
    os.environ.clear()
    libc.prctl(layers.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(layers.PR_SET_DUMPABLE, 0, 0, 0, 0)
    layers.give_up_new_privileges(libc)
    apply_filter = _prepare_call_filter()  # libseccomp is loaded from a file
    landlock = layers.restrict_with_landlock(libc)  # takes a descriptor for a moment
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
    ):
        resource.setrlimit(limit, (value, value))
    return Confinement(landlock=landlock, call_filter=apply_filter(), memory_bytes=MEMORY_BYTES)


def offered() -> Confinement:
    """Return what this system would give a gate; changes nothing in this process."""
    version = max(0, layers.landlock_version(layers.c_library()))
    return Confinement(version, layers.call_filter_offered(), MEMORY_BYTES)


def _prepare_call_filter() -> Callable[[], bool]:
    """Return what switches the system-call filter on and tells whether it took effect.

    Threads may be started, processes not; no memory becomes executable.
    """
    flags_at = 1 if platform.machine() == "s390x" else 0
    return layers.prepare_call_filter(
        ALLOWED_CALLS,
        guarded=[
            *(layers.When(name, 2, PROT_EXEC, 0) for name in ("mmap", "mmap2", "mprotect")),
            layers.When("clone", flags_at, CLONE_THREAD, CLONE_THREAD),
        ],
        # Its flags are behind a pointer: "no such call" makes the C library use clone.
        refused=[("clone3", errno.ENOSYS)],
    )
