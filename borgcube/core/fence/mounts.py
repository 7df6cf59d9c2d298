"""A view of the file system in which only one directory can be written.

For a process that has a mount namespace of its own already, and may mount in it. Directories that
are to be there (the target, a session's own) are taken as detached copies of their mounts first;
then all of ``/`` becomes read-only, with every mount below it; then temporary file systems go over
what must not be seen; then the copies are put in their places again.

Sources: mount_setattr(2), open_tree(2) and move_mount(2) (Linux 5.12 and newer), mount(2),
``Documentation/filesystems/proc.rst``.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The same numbers on every architecture.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 1, 4
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8  # of mount(2) and of mount_setattr(2) alike
MS_PRIVATE = 1 << 18

DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
         "stderr": "/proc/self/fd/2"}  # fmt: skip
# Sockets, other users' files and the kernel's own interfaces: nothing that extracting needs.
COVERED = ("/tmp", "/var/tmp", "/run", "/dev", "/sys")
TEMPORARY = os.path.realpath("/tmp")  # the one of them that can be written
TEMPORARY_OPTIONS = "size=16m,nr_inodes=4k,mode=0700"


@dataclass(frozen=True)
class View:
    """What can be written (``target`` and ``writable``), must be there, must not be there.

    All are real paths of directories. ``needed`` matters only below something that is hidden.
    """

    target: str
    writable: Sequence[str] = ()
    needed: Sequence[str] = ()
    hidden: Sequence[str] = ()


def _raise(what: str, path: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}", path)


def below(path: str, place: str) -> bool:
    """Return whether ``path`` is ``place`` or in it."""
    return path == place or path.startswith(place.rstrip("/") + "/")


class _Mounts:
    """The calls, with errors that name the path."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc

    def mount(self, kind: str, path: str, flags: int, options: str = "") -> None:
        done = self._libc.mount(kind.encode(), os.fsencode(path), kind.encode(),
                                ctypes.c_ulong(flags), options.encode())  # fmt: skip
        if done != 0:
            _raise(f"{kind} cannot be mounted", path)

    def copy(self, path: str) -> int:
        """Return a descriptor of a detached copy of what is mounted at and below a path."""
        flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
        tree: int = self._libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)
        if tree < 0:
            _raise("it cannot be taken into the fence", path)
        return tree

    def restrict(self, place: int, path: str, attributes: int, *, recursive: bool) -> None:
        flags = (AT_RECURSIVE if recursive else 0) | (0 if place == AT_FDCWD else AT_EMPTY_PATH)
        packed = struct.pack("=4Q", attributes, 0, MS_PRIVATE, 0)
        if self._libc.syscall(SYS_MOUNT_SETATTR, place, os.fsencode(path), flags, packed,
                              ctypes.c_size_t(len(packed))) != 0:  # fmt: skip
            _raise("it cannot be made read-only", path or "a copy")

    def attach(self, tree: int, path: str) -> None:
        if self._libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(path),
                              MOVE_MOUNT_F_EMPTY_PATH) != 0:  # fmt: skip
            _raise("it cannot be put in its place", path)
        os.close(tree)


def covers(hidden: Iterable[str]) -> list[str]:
    """Return the directories that get an empty file system of their own, none in another."""
    found: list[str] = []
    real = {os.path.realpath(one) for one in (*COVERED, *hidden) if os.path.isdir(one)}
    for path in sorted(real, key=len):
        if not any(below(path, other) for other in found):
            found.append(path)
    return found


def enter(libc: Any, view: View) -> None:
    """Make the view, all but ``/proc``; raises OSError with the reason.

    The working directory becomes ``/``.
    """
    os.chdir("/")
    mounts = _Mounts(libc)
    covered = covers(view.hidden)
    mounts.restrict(AT_FDCWD, "/", 0, recursive=True)  # nothing spreads, in or out
    devices = {name: mounts.copy(f"/dev/{name}") for name in DEVICES}
    # Shorter paths first: one may be in another, and must end up on top of it.
    places = [
        *((path, RDONLY | NOSUID | NODEV) for path in view.needed
          if any(below(path, place) for place in covered)),
        *((path, NOSUID | NODEV) for path in view.writable),
        (view.target, NOSUID | NODEV | NOEXEC),
    ]  # fmt: skip
    copies = []
    for path, attributes in sorted(places, key=lambda one: len(one[0])):
        tree = mounts.copy(path)
        mounts.restrict(tree, "", attributes, recursive=True)
        copies.append((path, tree))
    mounts.restrict(AT_FDCWD, "/", RDONLY | NOSUID | NODEV, recursive=True)
    for path in covered:
        options = TEMPORARY_OPTIONS if path == TEMPORARY else "size=64k,nr_inodes=256,mode=0755"
        mounts.mount("tmpfs", path, NOSUID | NODEV | NOEXEC, options)
    if "/dev" in covered:
        for name, tree in devices.items():
            Path("/dev", name).touch()
            mounts.attach(tree, f"/dev/{name}")
        for name, leads_to in LINKS.items():
            os.symlink(leads_to, f"/dev/{name}")
    for path, tree in copies:
        os.makedirs(path, mode=0o755, exist_ok=True)
        mounts.attach(tree, path)
    for path in covered:
        if path != TEMPORARY and not any(path == place for place, _ in places):
            mounts.restrict(AT_FDCWD, path, RDONLY | NOSUID | NODEV | NOEXEC, recursive=False)
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        raise OSError(0, "the root is not read-only", "/")


def mount_proc(libc: Any) -> None:
    """Show the processes of this namespace and nothing else of the kernel; raises OSError."""
    _Mounts(libc).mount("proc", "/proc", RDONLY | NOSUID | NODEV | NOEXEC, "subset=pid")
