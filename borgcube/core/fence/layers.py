"""What a process can give up about itself: files (Landlock), system calls (libseccomp),
capabilities, new privileges. Through ctypes; no layer knows what the process is for.

Used by the gate (``plugins/borg/gate/confine.py``) and by the fence. Each layer stands alone: what
the kernel or the machine does not offer is reported and left out; the caller decides.

Sources: prctl(2), capabilities(7), Linux' ``Documentation/userspace-api/landlock.rst`` and its
header ``include/uapi/linux/landlock.h``, seccomp_rule_add(3) and seccomp_load(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38

# The same numbers on every architecture: these calls are newer than the unified table.
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
# How many file system rights each version knows; a right is one bit, counted from zero.
LANDLOCK_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
LANDLOCK_NET_RIGHTS = 2  # bind and connect of TCP, from version 4
LANDLOCK_SCOPES = 2  # abstract unix sockets and signals, from version 6
FS_EXECUTE, FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FS_REMOVE_DIR, FS_REMOVE_FILE, FS_MAKE_CHAR, FS_MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
FS_MAKE_REG, FS_MAKE_FIFO, FS_MAKE_BLOCK, FS_MAKE_SYM = 1 << 8, 1 << 10, 1 << 11, 1 << 12
FS_REFER, FS_TRUNCATE = 1 << 13, 1 << 14
FS_OF_A_FILE = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE  # the rest needs a directory

SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_ACT_ERRNO = 0x00050000
SCMP_CMP_MASKED_EQ = 7
CAPABILITY_VERSION_3, MAX_CAPABILITIES = 0x20080522, 64


class When(NamedTuple):
    """Allow a call when argument ``arg``, masked with ``mask``, is ``value``."""

    name: str
    arg: int
    mask: int
    value: int


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp`` of libseccomp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def c_library() -> Any:
    """Return the C library, with errno kept for :func:`ctypes.get_errno`."""
    return ctypes.CDLL(None, use_errno=True)


def error_number() -> int:
    """Return the error number of the last call through :func:`c_library`."""
    return ctypes.get_errno()


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor but ``keep``; of the standard three, the others are /dev/null."""
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


def give_up_new_privileges(libc: Any) -> None:
    """Set no-new-privileges; raises OSError."""
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "new privileges cannot be given up")


def keep_capabilities(libc: Any, kept: Collection[int], *, bounding: bool = True) -> None:
    """Drop every capability but ``kept``, of those that the process has; raises OSError.

    With ``bounding``, no program that is started later gets them back either.
    """
    for number in range(MAX_CAPABILITIES) if bounding else ():
        if number not in kept:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # fails beyond the kernel's last
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    now = ctypes.create_string_buffer(24)
    if libc.capget(header, now) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be read")
    permitted_low, permitted_high = struct.unpack("=6I", now.raw)[1::3]
    wanted = sum(1 << one for one in kept)
    low, high = permitted_low & wanted & 0xFFFFFFFF, permitted_high & (wanted >> 32)
    if libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def landlock_version(libc: Any) -> int:
    """Return the kernel's version of Landlock; below 1 there is none."""
    return int(
        libc.syscall(
            SYS_LANDLOCK_CREATE_RULESET,
            None,
            ctypes.c_size_t(0),
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    )


def restrict_with_landlock(libc: Any, grants: Sequence[tuple[str, int]] = ()) -> int:
    """Deny all files but ``grants``, TCP, abstract sockets and signals to others.

    The ruleset handles every right that the kernel's version knows; a grant is a path with rights
    for it and what is below it. Returns the version; 0 means that the kernel has no Landlock,
    that it is not switched on, or that the rules could not be made.
    """
    version = landlock_version(libc)
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
        for path, rights in grants:
            _grant(libc, ruleset, path, rights & files)
        done: int = libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version if done == 0 else 0


def _grant(libc: Any, ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, place)
        if libc.syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock takes no rule", path)
    finally:
        os.close(place)


def call_filter_offered() -> bool:
    """Return whether this machine has libseccomp."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return False
    return True


def prepare_call_filter(
    allowed: Sequence[str], *, guarded: Sequence[When] = (),
    refused: Sequence[tuple[str, int]] = (), otherwise: int = errno.EPERM,
) -> Callable[[], bool]:  # fmt: skip
    """Return what switches a filter on and tells whether it took effect.

    Calls that are not allowed fail with ``otherwise``, those in ``refused`` with an error number
    of their own. A name that is guarded more than once is allowed when any guard fits. libseccomp
    knows the numbers of each architecture; without it there is no filter.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
        library.seccomp_init.restype = ctypes.c_void_p
        context = ctypes.c_void_p(library.seccomp_init(SCMP_ACT_ERRNO | otherwise))
    except (OSError, AttributeError):
        return lambda: False

    def rule(action: int, name: str, *comparisons: _Comparison) -> bool:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            return True  # unknown to this libseccomp or this architecture: it stays forbidden
        array = (_Comparison * len(comparisons))(*comparisons)
        count = len(comparisons)
        return bool(library.seccomp_rule_add_array(context, action, number, count, array) == 0)

    made = all(
        [
            bool(context),
            *(rule(SCMP_ACT_ALLOW, name) for name in allowed),
            *(
                rule(SCMP_ACT_ALLOW, one.name,
                     _Comparison(one.arg, SCMP_CMP_MASKED_EQ, one.mask, one.value))
                for one in guarded
            ),
            *(rule(SCMP_ACT_ERRNO | number, name) for name, number in refused),
        ]
    )  # fmt: skip
    return lambda: bool(made and library.seccomp_load(context) == 0)
