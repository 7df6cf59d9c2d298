"""Compare restored files with what their archive says. Reads files below one directory only.

An expected file is plain data: ``path``, ``size``, ``mode``, ``mtime_ns`` and ``pieces``, a
list of (ID in hex, length): the keyed hash of each piece of its content, in order. The IDs
were made by the client when it was backed up, so that a file that fits them has the very
content that was read then, whatever lies between.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borgcube.core.untrusted import words

# A restore onto the server leaves out set-user-ID and set-group-ID bits.
MODE_BITS = 0o1777
MAX_PIECE = 32 << 20


@dataclass
class Compared:
    """What came of one file."""

    path: str
    size: int
    problems: list[str] = field(default_factory=list)
    sha256: str = ""
    mode: int = 0
    mtime_ns: int = 0


def _allowed(place: int, bits: int) -> None:
    """Let this process do what ``bits`` say with an open ``O_PATH`` descriptor's file: its owner,
    who restored it, may not be allowed to."""
    mode = os.fstat(place).st_mode
    if mode & bits != bits:
        os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(mode) | bits)


def _found(base: Path, path: str) -> int:
    """Return an ``O_PATH`` descriptor of a restored file. Each name on the way is that of a real
    directory: no link is followed, and nothing outside of ``base`` is ever opened. Raises OSError.
    """
    names = path.split("/")
    if any(name in ("", ".", "..") for name in names):
        raise OSError("its path is no path of an archive")
    place = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for last, name in ((number == len(names), name) for number, name in enumerate(names, 1)):
            kind = 0 if last else os.O_DIRECTORY
            _allowed(place, stat.S_IRWXU)
            try:
                below = os.open(name, os.O_PATH | os.O_NOFOLLOW | kind, dir_fd=place)
            except NotADirectoryError:
                raise OSError(f"{words(name)} on its way is no directory") from None
            os.close(place)
            place = below
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError("it is no regular file")
    except BaseException:
        os.close(place)
        raise
    return place


def compare(
    base: Path, expected: Mapping[str, Any], content_hash: Callable[[bytes], bytes]
) -> Compared:
    """Compare one restored file below ``base`` (a real path) with what is expected of it."""
    found = Compared(str(expected["path"]), int(expected["size"]), mode=int(expected["mode"]),
                     mtime_ns=int(expected["mtime_ns"]))  # fmt: skip
    try:
        place = _found(base, found.path)
        try:
            known = os.fstat(place)
            _allowed(place, stat.S_IRUSR)
            descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK)
        finally:
            os.close(place)
    except OSError as error:
        found.problems.append(f"it was not restored: {error.strerror or error}")
        return found
    with open(descriptor, "rb") as file:
        if known.st_size != found.size:
            found.problems.append(f"it has {known.st_size:,} bytes, should be {found.size:,}")
        if known.st_mode & MODE_BITS != found.mode & MODE_BITS:
            found.problems.append(f"its mode is {known.st_mode & MODE_BITS:04o}, should be "
                                  f"{found.mode & MODE_BITS:04o}")  # fmt: skip
        if known.st_mtime_ns != found.mtime_ns:
            found.problems.append("its time of change is not the archived one")
        digest = hashlib.sha256()
        at = 0
        for identity, length in expected["pieces"]:
            piece = file.read(min(int(length), MAX_PIECE))
            digest.update(piece)
            if content_hash(piece).hex() != identity:
                found.problems.append(f"its content differs between bytes {at:,} and "
                                      f"{at + int(length):,}")  # fmt: skip
                break
            at += int(length)
        else:
            if file.read(1):
                found.problems.append("it is longer than the archived file")
            found.sha256 = digest.hexdigest()
    return found
