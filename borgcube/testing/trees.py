"""The room of file trees: makes the ones that break naive tools, and compares two of them.

Tests, the demo and the bench call it. Everything it makes follows from a seed, and it
works on bytes paths inside, because file names need not be UTF-8. It knows nothing of
Borg and never touches a path outside the directories it is given.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_WORDS = [
    b"alpha",
    b"backup",
    b"cube",
    b"delta",
    b"error",
    b"file",
    b"index",
    b"journal",
    b"kernel",
]
_BASE_TIME_NS = 1_600_000_000 * 10**9
# Attributes that describe the file system the file lies on, not the file.
_IGNORED_XATTRS = {"security.selinux"}


def make_nasty_tree(
    path: Path,
    *,
    seed: int = 1,
    big_bytes: int = 300 << 20,
    small_files: int = 5000,
    unreadable: bool | None = None,
) -> None:
    """Make at `path` a tree of all that naive backup tools get wrong.

    `unreadable` adds a file of mode 000; None means: only when not root, because root
    reads it all the same. Extended attributes and ACLs are left out, without an error,
    where the file system or `setfacl` is missing.
    """
    if unreadable is None:
        unreadable = os.geteuid() != 0
    path.mkdir(parents=True, exist_ok=True)
    root = os.fsencode(path)
    rng = random.Random(seed)

    _make_links(root, rng)
    _make_sparse(root, rng)
    _make_attributes(root)
    _make_names(root, rng)
    _make_special(root, rng, unreadable=unreadable)
    _write_random(os.path.join(root, b"big.bin"), big_bytes, rng)
    make_many_small(path / "small", small_files, seed=rng.getrandbits(32), min_bytes=0)
    _make_times(root, rng)


def make_mixed(path: Path, total_bytes: int, *, seed: int = 1) -> None:
    """Fill `path` with `total_bytes` in files of 4 KiB to 64 MiB, about half compressible."""
    path.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    left, number = total_bytes, 0
    while left > 0:
        size = min(left, int(2 ** rng.uniform(12, 26)))
        folder = os.path.join(os.fsencode(path), b"d%03d" % (number // 50))
        os.makedirs(folder, exist_ok=True)
        target = os.path.join(folder, b"f%05d" % number)
        if number % 2:
            _write_text(target, size, rng)
        else:
            _write_random(target, size, rng)
        left -= size
        number += 1


def make_many_small(
    path: Path, count: int, *, seed: int = 1, min_bytes: int = 1 << 10, max_bytes: int = 8 << 10
) -> None:
    """Make `count` files of `min_bytes` to `max_bytes` bytes, a hundred to a directory."""
    path.mkdir(parents=True, exist_ok=True)
    root = os.fsencode(path)
    rng = random.Random(seed)
    folder = root
    for number in range(count):
        if number % 100 == 0:
            folder = os.path.join(root, b"d%04d" % (number // 100))
            os.makedirs(folder, exist_ok=True)
        size = rng.randint(min_bytes, max_bytes)
        half = size // 2
        with open(os.path.join(folder, b"f%06d" % number), "wb") as file:
            file.write(rng.randbytes(size - half) + _text(half, rng))


def make_unchanged(path: Path, *, files: int = 100_000, seed: int = 1) -> None:
    """Make `files` tiny files: a tree whose cost is looking at files, not reading them."""
    make_many_small(path, files, seed=seed, min_bytes=16, max_bytes=512)


def compare_trees(
    a: Path | bytes, b: Path | bytes, *, ignore_unreadable: bool = False
) -> list[str]:
    """Return every difference between the trees `a` and `b`, one line each; [] when equal.

    Compares type, mode, owner (as root), size, mtime in nanoseconds, content, link
    target, hard link groups, extended attributes with ACLs, and roughly sparseness.
    With `ignore_unreadable`, files of `a` that this user cannot read may be missing in
    `b`. A root that is missing or no directory is a difference, never an empty tree.
    """
    root_a, root_b = os.fsencode(a), os.fsencode(b)
    for root in (root_a, root_b):
        if not os.path.isdir(root):
            return [f"{_show(root)}: is not a directory"]
    stats_a, stats_b = dict(_walk(root_a)), dict(_walk(root_b))
    skipped: set[bytes] = set()
    if ignore_unreadable:
        skipped = {
            name
            for name, st in stats_a.items()
            if stat.S_ISREG(st.st_mode) and not os.access(os.path.join(root_a, name), os.R_OK)
        }
    found: list[str] = []
    for name in sorted((stats_a.keys() | stats_b.keys()) - skipped):
        st_a, st_b = stats_a.get(name), stats_b.get(name)
        if st_a is None:
            found.append(f"{_show(name)}: only in the second tree")
        elif st_b is None:
            found.append(f"{_show(name)}: only in the first tree")
        else:
            path_a, path_b = _join(root_a, name), _join(root_b, name)
            found += [f"{_show(name)}: {text}" for text in _differences(path_a, st_a, path_b, st_b)]
    groups_a, groups_b = _link_groups(stats_a, skipped), _link_groups(stats_b, skipped)
    for group in sorted(groups_a ^ groups_b, key=sorted):
        which = "first" if group in groups_a else "second"
        names = ", ".join(_show(name) for name in sorted(group))
        found.append(f"hard links only in the {which} tree: {names}")
    return found


def _show(name: bytes) -> str:
    return repr(os.fsdecode(name)) if name else "the root"


def _join(root: bytes, name: bytes) -> bytes:
    return os.path.join(root, name) if name else root


def _raise(error: OSError) -> None:
    raise error


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.lstat(root)
    for folder, folders, files in os.walk(root, onerror=_raise):
        for name in folders + files:
            full = os.path.join(folder, name)
            yield os.path.relpath(full, root), os.lstat(full)


def _link_groups(stats: dict[bytes, os.stat_result], skipped: set[bytes]) -> set[frozenset[bytes]]:
    groups: dict[tuple[int, int], set[bytes]] = {}
    for name, st in stats.items():
        if not stat.S_ISDIR(st.st_mode) and name not in skipped:
            groups.setdefault((st.st_dev, st.st_ino), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def _differences(
    path_a: bytes, st_a: os.stat_result, path_b: bytes, st_b: os.stat_result
) -> Iterator[str]:
    if stat.S_IFMT(st_a.st_mode) != stat.S_IFMT(st_b.st_mode):
        yield f"type {stat.filemode(st_a.st_mode)} is {stat.filemode(st_b.st_mode)}"
        return
    mode_a, mode_b = stat.S_IMODE(st_a.st_mode), stat.S_IMODE(st_b.st_mode)
    if mode_a != mode_b:
        yield f"mode {mode_a:04o} is {mode_b:04o}"
    owner_a, owner_b = (st_a.st_uid, st_a.st_gid), (st_b.st_uid, st_b.st_gid)
    if os.geteuid() == 0 and owner_a != owner_b:
        yield f"owner {owner_a} is {owner_b}"
    if st_a.st_mtime_ns != st_b.st_mtime_ns:
        yield f"mtime {st_a.st_mtime_ns} ns is {st_b.st_mtime_ns} ns"
    xattrs_a, xattrs_b = _xattrs(path_a), _xattrs(path_b)
    for key in sorted(xattrs_a.keys() | xattrs_b.keys()):
        if xattrs_a.get(key) != xattrs_b.get(key):
            yield f"xattr {key} {xattrs_a.get(key)!r} is {xattrs_b.get(key)!r}"
    if stat.S_ISLNK(st_a.st_mode):
        target_a, target_b = os.readlink(path_a), os.readlink(path_b)
        if target_a != target_b:
            yield f"link target {_show(target_a)} is {_show(target_b)}"
    elif stat.S_ISCHR(st_a.st_mode) or stat.S_ISBLK(st_a.st_mode):
        if st_a.st_rdev != st_b.st_rdev:
            yield f"device {st_a.st_rdev} is {st_b.st_rdev}"
    elif stat.S_ISREG(st_a.st_mode):
        if st_a.st_size != st_b.st_size:
            yield f"size {st_a.st_size} is {st_b.st_size}"
            return
        try:
            if _digest(path_a) != _digest(path_b):
                yield "content differs"
        except PermissionError as error:
            yield f"content cannot be compared: {error.strerror}"
        if _is_sparse(st_a) and not _is_sparse(st_b):
            yield "is sparse in the first tree only"


def _is_sparse(st: os.stat_result) -> bool:
    # Half and 1 MiB: file systems round, and a small hole says nothing.
    return st.st_size >= _BLOCK and st.st_blocks * 512 * 2 < st.st_size


def _digest(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return {}
        raise
    found = {}
    for name in names:
        if name in _IGNORED_XATTRS:
            continue
        try:
            found[name] = os.getxattr(path, name, follow_symlinks=False)
        except PermissionError:
            continue  # a user.* attribute of a file this user cannot read
    return found


def _text(size: int, rng: random.Random) -> bytes:
    if size <= 0:
        return b""
    line = b" ".join(rng.choices(_WORDS, k=16)) + b"\n"
    return (line * (size // len(line) + 1))[:size]


def _write_text(path: bytes, size: int, rng: random.Random) -> None:
    with open(path, "wb") as file:
        while size > 0:
            # A number in each block, or Borg would store all blocks as one.
            block = rng.randbytes(256) + _text(min(size, 1 << 14), rng)
            file.write(block[:size])
            size -= len(block)


def _write_random(path: bytes, size: int, rng: random.Random) -> None:
    with open(path, "wb") as file:
        while size > 0:
            file.write(rng.randbytes(min(size, _BLOCK)))
            size -= _BLOCK


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _make_links(root: bytes, rng: random.Random) -> None:
    folder = os.path.join(root, b"links")
    os.makedirs(os.path.join(folder, b"other"))
    first = os.path.join(folder, b"first")
    _write(first, rng.randbytes(5000))
    os.link(first, os.path.join(folder, b"second"))
    os.link(first, os.path.join(folder, b"other", b"third"))
    os.symlink(b"first", os.path.join(folder, b"relative"))
    os.symlink(b"nowhere/at all", os.path.join(folder, b"dangling"))
    os.symlink(b"/etc/hostname", os.path.join(folder, b"absolute"))
    os.symlink(b"other", os.path.join(folder, b"to-directory"))
    os.symlink(b"\xff\xfe", os.path.join(folder, b"to-invalid"))


def _make_sparse(root: bytes, rng: random.Random) -> None:
    # Holes of several maximum chunks (8 MiB): Borg restores only whole chunks as holes.
    with open(os.path.join(root, b"sparse.img"), "wb") as file:
        file.write(rng.randbytes(4096))
        file.seek(40 << 20)
        file.write(rng.randbytes(4096))
        file.truncate(64 << 20)


def _make_attributes(root: bytes) -> None:
    folder = os.path.join(root, b"attributes")
    os.makedirs(folder)
    target = os.path.join(folder, b"xattr")
    _write(target, b"attributes\n")
    for place in (target, folder):
        try:
            os.setxattr(place, b"user.borgcube", b"value \x00\xff")
            os.setxattr(place, b"user.empty", b"")
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
    listed = os.path.join(folder, b"acl")
    _write(listed, b"access\n")
    setfacl = shutil.which("setfacl")
    if setfacl:
        for arguments, place in (
            (["-m", "u:1:rw,g:2:r"], listed),
            (["-d", "-m", "u:1:rwx"], folder),
        ):
            # A file system without ACLs refuses; the tree is then merely less nasty.
            subprocess.run(
                [setfacl, *arguments, "--", place], check=False, capture_output=True, timeout=30
            )


def _make_names(root: bytes, rng: random.Random) -> None:
    folder = os.path.join(root, b"names")
    os.makedirs(folder)
    for name in (
        b"new\nline",
        b"single'quote",
        b'double"quote',
        b"back\\slash",
        b"$(dollar) `tick` *?[x]",
        "uml\u00e4ut \u65e5\u672c \U0001f4be".encode(),
        "e\u0301 decomposed".encode(),
        b"invalid-\xff\xfe-utf8",
        b"-rf",
        b"--help",
        b" leading and trailing ",
        b"tab\tand\x1bescape",
        b"n" * 255,
    ):
        _write(os.path.join(folder, name), rng.randbytes(100))
    deep = folder
    for _ in range(20):
        deep = os.path.join(deep, b"deep directory \xe9")
    os.makedirs(deep)
    _write(os.path.join(deep, b"bottom"), b"bottom\n")


def _make_special(root: bytes, rng: random.Random, *, unreadable: bool) -> None:
    for name in (b"empty", b"empty-parent/child"):
        os.makedirs(os.path.join(root, name))
    folder = os.path.join(root, b"special")
    os.makedirs(folder)
    _write(os.path.join(folder, b"empty-file"), b"")
    os.mkfifo(os.path.join(folder, b"fifo"))
    modes = {b"setuid": 0o4755, b"setgid": 0o2755, b"read-only": 0o444, b"private": 0o600}
    if unreadable:
        modes[b"unreadable"] = 0
    for name, mode in modes.items():
        target = os.path.join(folder, name)
        _write(target, rng.randbytes(300))
        if os.geteuid() == 0 and name == b"private":
            os.chown(target, 1234, 4321)
        os.chmod(target, mode)
    sticky = os.path.join(folder, b"sticky")
    os.mkdir(sticky)
    os.chmod(sticky, 0o1777)


def _make_times(root: bytes, rng: random.Random) -> None:
    # Last, and bottom up: making a file changes the time of its directory.
    salt = rng.randbytes(8)
    for folder, folders, files in os.walk(root, topdown=False):
        for name in sorted(files) + sorted(folders):
            if name in (b"second", b"third"):
                continue  # a hard link: the time is set through its first name
            # From the name, not from a running generator: the order of a listing is the
            # file system's, and the tree must not depend on it.
            digest = hashlib.sha256(salt + os.path.relpath(os.path.join(folder, name), root))
            when = _BASE_TIME_NS + int.from_bytes(digest.digest()[:7], "big")
            if name == b"empty-file":
                when = 1  # one nanosecond after the epoch
            elif name == b"read-only":
                when = 2_147_000_000 * 10**9 + 999_999_999  # late in what Borg keeps
            os.utime(os.path.join(folder, name), ns=(when, when), follow_symlinks=False)
    os.utime(root, ns=(_BASE_TIME_NS, _BASE_TIME_NS))
