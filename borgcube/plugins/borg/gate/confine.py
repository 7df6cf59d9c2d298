"""Take from the gate's process whatever it does not need, before it reads a client's byte.

Called once by ``gate/main.py``, after everything is imported and before the first thread.
Every layer stands alone: what the kernel or the machine does not offer is left out, and the
returned :class:`Confinement` says so. Nothing here knows what a gate does.

Sources: prctl(2), setrlimit(2), Linux' ``Documentation/userspace-api/landlock.rst`` and its
header ``include/uapi/linux/landlock.h``, seccomp_rule_add(3) and seccomp_load(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

MEMORY_BYTES = 1 << 30
# poll(2) refuses more entries than this limit; descriptor 0 stays open, so no new one fits.
MAX_DESCRIPTORS = 1

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

# The same numbers on every architecture: these calls are newer than the unified table.
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_RESTRICT_SELF = 444, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
# How many file system rights each version knows; a right is one bit, counted from zero.
LANDLOCK_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
LANDLOCK_NET_RIGHTS = 2  # bind and connect of TCP, from version 4
LANDLOCK_SCOPES = 2  # abstract unix sockets and signals, from version 6

SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_ACT_ERRNO = 0x00050000
SCMP_CMP_MASKED_EQ = 7
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


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp`` of libseccomp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def confine(*, keep: Iterable[int]) -> Confinement:
    """Leave this process its memory, its threads and the descriptors in ``keep``.

    Standard input, output and error become ``/dev/null``; all other descriptors are closed
    and the environment is emptied. Afterwards the process opens no file and no socket,
    starts no process and grows no file. Raises OSError when a limit that every Linux has
    cannot be set.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _close_all_but({*keep})
    os.environ.clear()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the gate cannot give up new privileges")
    apply_filter = _prepare_call_filter()  # libseccomp is loaded from a file
    landlock = _restrict_with_landlock(libc)  # takes a descriptor for a moment
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
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        ctypes.CDLL("libseccomp.so.2")
        call_filter = True
    except OSError:
        call_filter = False
    return Confinement(max(0, _landlock_version(libc)), call_filter, MEMORY_BYTES)


def _landlock_version(libc: Any) -> int:
    return int(
        libc.syscall(
            SYS_LANDLOCK_CREATE_RULESET,
            None,
            ctypes.c_size_t(0),
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    )


def _close_all_but(keep: set[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1, 2} - keep:
        os.dup2(nothing, standard, inheritable=False)
    wanted = {0, 1, 2} | keep
    for descriptor in {int(name) for name in os.listdir("/proc/self/fd")} - wanted:
        try:
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:  # the listing's own descriptor is gone already
                raise


def _restrict_with_landlock(libc: Any) -> int:
    """Deny all files, TCP, abstract sockets and signals to others; return the version.

    The ruleset handles every right of the kernel's version and grants none. 0 means that
    the kernel has no Landlock, or that it is not switched on.
    """
    version = _landlock_version(libc)
    if version < 1:
        return 0
    files = (1 << LANDLOCK_FS_RIGHTS.get(version, max(LANDLOCK_FS_RIGHTS.values()))) - 1
    fields = [files]
    if version >= 4:
        fields.append((1 << LANDLOCK_NET_RIGHTS) - 1)
    if version >= 6:
        fields.append((1 << LANDLOCK_SCOPES) - 1)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(
        SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0
    )
    if ruleset < 0:
        return 0
    try:
        done: int = libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version if done == 0 else 0


def _prepare_call_filter() -> Callable[[], bool]:
    """Return what switches the system-call filter on and tells whether it took effect.

    Calls that are not allowed fail with EPERM. Threads may be started, processes not; no
    memory becomes executable. libseccomp knows the numbers of each architecture; without
    it there is no filter.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
        library.seccomp_init.restype = ctypes.c_void_p
        context = ctypes.c_void_p(library.seccomp_init(SCMP_ACT_ERRNO | errno.EPERM))
    except (OSError, AttributeError):
        return lambda: False

    def rule(action: int, name: str, *comparisons: _Comparison) -> bool:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            return True  # unknown to this libseccomp or this architecture: it stays forbidden
        array = (_Comparison * len(comparisons))(*comparisons)
        count = len(comparisons)
        return bool(library.seccomp_rule_add_array(context, action, number, count, array) == 0)

    flags_at = 1 if platform.machine() == "s390x" else 0
    made = all(
        [
            bool(context),
            *(rule(SCMP_ACT_ALLOW, name) for name in ALLOWED_CALLS),
            *(
                rule(SCMP_ACT_ALLOW, name, _Comparison(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0))
                for name in ("mmap", "mmap2", "mprotect")
            ),
            rule(
                SCMP_ACT_ALLOW,
                "clone",
                _Comparison(flags_at, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD),
            ),
            # Its flags are behind a pointer: "no such call" makes the C library use clone.
            rule(SCMP_ACT_ERRNO | errno.ENOSYS, "clone3"),
        ]
    )
    return lambda: bool(made and library.seccomp_load(context) == 0)
