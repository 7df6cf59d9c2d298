"""Which system calls a fenced program may make: files, pipes, processes of its own, memory, time.

Not among them: sockets of any kind, mounts and namespaces, other processes' memory, keyrings,
io_uring (which would go round this filter), handles of files, BPF, and what only administration
needs. The kernel's own checks come on top; where this list and they agree, either would do.
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Callable

from borgcube.core.fence.layers import When, prepare_call_filter

ALLOWED = (
    # Reading and writing what is open
    "read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev",
    "pwritev2", "lseek", "_llseek", "copy_file_range", "sendfile", "sendfile64", "splice", "tee",
    "fsync", "fdatasync", "sync_file_range", "fadvise64", "fadvise64_64", "readahead", "flock",
    # Descriptors and pipes
    "close", "close_range", "dup", "dup2", "dup3", "pipe", "pipe2", "fcntl", "fcntl64",
    "poll", "ppoll", "select", "_newselect", "pselect6", "epoll_create", "epoll_create1",
    "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2",
    # Names
    "stat", "lstat", "fstat", "stat64", "lstat64", "fstat64", "fstatat64", "newfstatat", "statx",
    "statfs", "fstatfs", "statfs64", "fstatfs64", "access", "faccessat", "faccessat2",
    "readlink", "readlinkat", "getdents", "getdents64", "getcwd", "chdir", "fchdir",
    "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "truncate", "truncate64", "ftruncate", "ftruncate64",
    # What is known of files
    "chown", "chown32", "lchown", "lchown32", "fchown", "fchown32", "fchownat", "umask",
    "utime", "utimes", "utimensat", "utimensat_time64", "futimesat",
    "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr",
    "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
    # Memory
    "brk", "mmap", "mmap2", "mprotect", "mremap", "munmap", "madvise", "msync", "mincore",
    "membarrier", "get_mempolicy",
    # Processes of its own, and signals among them
    "vfork", "fork", "execve", "exit", "exit_group", "wait4", "waitid", "waitpid", "kill", "tkill",
    "tgkill", "getpid", "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid",
    "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32", "getegid", "getegid32",
    "getgroups", "getgroups32", "getresuid", "getresuid32", "getresgid", "getresgid32", "capget",
    "prctl", "arch_prctl", "set_tid_address", "set_thread_area", "set_robust_list",
    "get_robust_list", "rseq", "futex", "futex_time64", "futex_waitv", "sched_yield",
    "sched_getaffinity", "sched_getparam", "sched_getscheduler", "getcpu", "getpriority",
    "setpriority", "getrlimit", "ugetrlimit", "setrlimit", "prlimit64", "getrusage", "times",
    "sysinfo", "uname", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "sigaltstack", "sigreturn",
    "restart_syscall", "pause", "alarm", "getitimer", "setitimer",
    # Time and chance
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "nanosleep", "gettimeofday", "time", "getrandom",
)  # fmt: skip
# A new process, but in the namespaces of the old one.
NEW_NAMESPACES = 0x7E020080
# Terminals (is it one?), blocking, flags of files (of Linux' fs.h), and sharing of blocks.
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x80086601, 0x40086602, 0x40049409)
SET_ID = 0o6000
# Calls that give a file its mode, with the place of that argument.
MODES = (
    ("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("open", 2), ("openat", 3),
    ("creat", 1), ("mkdir", 1), ("mkdirat", 2), ("mknod", 1), ("mknodat", 2),
)  # fmt: skip
TYPE, FIFO, REGULAR = 0o170000, 0o010000, 0o100000


def prepare(*, as_root: bool) -> Callable[[], bool]:
    """Return what switches the filter on and tells whether it took effect.

    Unless ``as_root``, no file gets a set-user-ID or set-group-ID bit, and no device is made.
    """
    flags_at = 1 if platform.machine() == "s390x" else 0
    guarded = [When("clone", flags_at, NEW_NAMESPACES, 0)]
    guarded += [When("ioctl", 1, 0xFFFFFFFF, number) for number in IOCTLS]
    allowed: list[str] = [*ALLOWED]
    if as_root:
        allowed += [name for name, _ in MODES]
    else:
        for name, arg in MODES:
            if name.startswith("mknod"):
                guarded += [When(name, arg, TYPE | SET_ID, kind) for kind in (FIFO, REGULAR, 0)]
            else:
                guarded.append(When(name, arg, SET_ID, 0))
    return prepare_call_filter(
        allowed,
        guarded=guarded,
        # Newer forms whose arguments are behind a pointer: the C library then takes the older one.
        refused=[("clone3", errno.ENOSYS), ("openat2", errno.ENOSYS)],
    )
