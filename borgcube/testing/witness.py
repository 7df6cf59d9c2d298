"""A tree that must not change, and the digest that tells whether it did.

The digest takes in names, kinds, content, modes, owners, links, times of change (of content and of
everything else: the kernel sets that one, and no program can set it back) and attributes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def make(place: Path) -> Path:
    """Make the tree at ``place`` and return it."""
    (place / "directory").mkdir(parents=True)
    (place / "file").write_text("as it was")
    (place / "directory" / "inner").write_text("as it was, too")
    (place / "program").write_text("#!/bin/sh\nid\n")
    (place / "program").chmod(0o755)
    os.setxattr(place / "file", "user.witness", b"as it was")
    os.symlink("file", place / "link")
    os.mkfifo(place / "fifo")
    return place


def digest(place: Path) -> str:
    """Return the digest of the tree, in hex."""
    made = hashlib.sha256()
    for path in sorted([place, *place.rglob("*")]):
        found = path.lstat()
        content = b""
        if stat.S_ISREG(found.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(found.st_mode):
            content = os.fsencode(os.readlink(path))
        attributes = [
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ]
        row = (
            str(path.relative_to(place)), found.st_mode, found.st_uid, found.st_gid, found.st_nlink,
            found.st_rdev, found.st_size, found.st_mtime_ns, found.st_ctime_ns, attributes,
            hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
        made.update(repr(row).encode())
    return made.hexdigest()
