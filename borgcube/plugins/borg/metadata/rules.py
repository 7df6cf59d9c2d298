"""What an archive may say: paths, kinds, fields, links, numbers. Pure.

Judges records (``form.py``), not bytes, so that a rule means the same for whoever wrote them. The
vault asks it of every item before it encodes it; a reader process that was taken over gains
nothing by leaving a rule out. Fields by kind are those that Borg's own extract, list and check
need (Borg 1.4, ``archive.py``: ``FilesystemObjectProcessors`` writes them, ``Archive.extract_item``
reads them).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Protocol

from borg.hashindex import ChunkIndex

from borgcube.plugins.borg.metadata import form
from borgcube.plugins.borg.metadata.form import Record

MAX_PATH = 4096 * 4
# A file system that counts 255 characters takes so many bytes of UTF-8; most take 255.
MAX_COMPONENT, USUAL_COMPONENT = 1020, 255
MAX_TIME_NS = 1 << 63
# How many first names of hard links one archive may have: so much memory, and what one of them
# takes while their table grows, which is when the old one and the new one are there. Of an archive
# that is stored already, in the process that reads it: with its symbolic links.
MAX_LINK_BYTES, MAX_STORED_LINK_BYTES = 1 << 30, 640 << 20
LINK_BYTES = 144

# Relative, in normal form: no empty, `.` or `..` component, no slash at an end. Borg remembers
# directories by the text of their path.
_PATH = re.compile(
    rb"(?!\.{1,2}(?:/|\Z))[^/\0]{1,1020}(?:/(?!\.{1,2}(?:/|\Z))[^/\0]{1,1020})*\Z", re.DOTALL
)
_LONG_COMPONENT = re.compile(rb"[^/]{256}")

REGULAR, DIRECTORY, LINK, PIPE, CHARACTER, BLOCK = "-", "d", "l", "p", "c", "b"
KINDS = {0o10: REGULAR, 0o04: DIRECTORY, 0o12: LINK, 0o01: PIPE, 0o02: CHARACTER, 0o06: BLOCK}
_LETTERS = {**KINDS, 0o14: "s"}

_SINGLE = (DIRECTORY, LINK)

_EVERY = (
    form.USER | form.GROUP | form.CTIME | form.ATIME | form.BIRTHTIME | form.BSDFLAGS | form.XATTRS
    | form.ACL_ACCESS | form.ACL_DEFAULT | form.ACL_EXTENDED | form.ACL_NFS4
)  # fmt: skip
_HARD = form.MASTER | form.IS_MASTER
_CONTENT = form.CHUNKS | form.HEALTHY | form.SIZE | form.PART
# Kind, and whether it is a further name of a hard link -> (what it must have, what it may have).
_FIELDS: dict[tuple[str, bool], tuple[int, int]] = {
    (REGULAR, False): (form.CHUNKS | form.SIZE, _EVERY | _HARD | _CONTENT),
    (REGULAR, True): (form.SOURCE, _EVERY | form.SOURCE),
    (DIRECTORY, False): (0, _EVERY),
    (LINK, True): (form.SOURCE, _EVERY | form.SOURCE),
    (PIPE, False): (0, _EVERY | _HARD),
    (PIPE, True): (form.SOURCE, _EVERY | form.SOURCE),
    (CHARACTER, False): (form.RDEV, _EVERY | _HARD | form.RDEV),
    (CHARACTER, True): (form.SOURCE | form.RDEV, _EVERY | form.SOURCE | form.RDEV),
    (BLOCK, False): (form.RDEV, _EVERY | _HARD | form.RDEV),
    (BLOCK, True): (form.SOURCE | form.RDEV, _EVERY | form.SOURCE | form.RDEV),
}


class ArchiveRefused(Exception):
    """An archive breaks a rule; the text names the rule, for the job's log.

    ``keep`` says that an honest client may be the reason: what it uploaded is kept for its
    next run. ``kind`` is the failure cause's.
    """

    def __init__(self, message: str, *, kind: str = "archive-refused", keep: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.keep = keep


def item_kind(mode: int) -> str:
    """Return ``ls``'s letter for a file mode: ``-``, ``d``, ``l``, ``p``, ``c``, ``b``, ``s``."""
    return _LETTERS.get((mode >> 12) & 0o17, "?")


def check_path(path: bytes) -> None:
    """Refuse a path that is absolute, leaves its root, is not in normal form or too long.

    The one path ``.`` is the item of the root itself.
    """
    if len(path) > MAX_PATH or _PATH.match(path) is None:
        if path != b".":
            raise ArchiveRefused("an item's path is not a relative one in normal form")


def check_stored_path(path: bytes) -> None:
    """Refuse a path of a stored archive that is empty, absolute, leaves its root or is too long.

    Other forms than the normal one are honest there: ``borg import-tar`` writes ``./x``.
    """
    if not path or len(path) > MAX_PATH or path[0] == 47 or b"\0" in path:
        raise ArchiveRefused("an item has an empty, absolute or over-long path")
    if b".." in path and b".." in path.split(b"/"):
        raise ArchiveRefused("an item's path contains '..'")


def has_long_component(path: bytes) -> bool:
    """Tell whether a component is longer than most file systems take."""
    return len(path) > USUAL_COMPONENT and _LONG_COMPONENT.search(path) is not None


def _digest(path: bytes) -> bytes:
    return hashlib.blake2b(path, digest_size=32).digest()


class LinkRules(Protocol):
    """Who is asked about hard links."""

    def add(self, path: bytes, kind: str) -> None:
        """Take a first name."""

    def check(self, source: bytes, kind: str) -> None:
        """Judge what refers to one."""


class Links:
    """The first names of hard links that an archive had so far, with their kinds.

    Bounded in bytes; what is over it is refused as our limit, not as the client's fault.
    """

    def __init__(self, *, most_bytes: int = MAX_LINK_BYTES) -> None:
        self._names: Any = ChunkIndex()
        self._most = most_bytes // LINK_BYTES

    def _kept(self) -> int:
        return len(self._names)

    def add(self, path: bytes, kind: str) -> None:
        """Remember a first name."""
        if self._kept() >= self._most:
            raise ArchiveRefused(
                "the archive has more hard links than this server keeps in mind",
                kind="archive-too-large", keep=True,
            )  # fmt: skip
        self._names[_digest(path)] = (ord(kind), 0, 0)

    def check(self, source: bytes, kind: str) -> None:
        """Refuse a source that is no earlier first name of the same kind."""
        entry = self._names.get(_digest(source))
        if entry is None or entry[0] != ord(kind):
            raise ArchiveRefused("a hard link's source is no earlier item that can be one")


class StoredLinks(Links):
    """Links of an archive that is stored already, where paths may be in any form.

    Borg keeps in mind by the text of its path which directory it has verified, so that another
    text for the same directory can lead it through a symbolic link. Where an archive has paths
    in two forms, nothing may lie below a symbolic link of it.
    """

    def __init__(self, *, most_bytes: int = MAX_STORED_LINK_BYTES) -> None:
        super().__init__(most_bytes=most_bytes)
        self._symbolic: Any = ChunkIndex()
        self._odd = False

    def _kept(self) -> int:
        return len(self._names) + len(self._symbolic)

    def take(self, path: bytes, kind: str) -> None:
        """Judge the path of the next item, and remember it if it is a symbolic link."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        normal = b"/".join(parts)
        self._odd = self._odd or (normal != path and path != b".")
        if self._odd and len(self._symbolic):
            for end in range(1, len(parts)):
                if _digest(b"/".join(parts[:end])) in self._symbolic:
                    raise ArchiveRefused("an item lies below a symbolic link of its archive")
        if kind == LINK:
            if self._kept() >= self._most:
                raise ArchiveRefused("the archive has more symbolic links than can be judged")
            self._symbolic[_digest(normal)] = (1, 0, 0)


def check_stored(record: Record, links: StoredLinks) -> str:
    """Refuse an item of a stored archive that leads out of it, or that Borg could not restore.

    Milder than :func:`check_record`: any borg there ever was may have written it.
    """
    check_stored_path(record.path)
    kind = KINDS.get(record.mode >> 12)
    if kind is None:
        raise ArchiveRefused("an item has a mode of no known type")
    links.take(record.path, kind)
    further = bool(record.flags & form.SOURCE) and kind != DIRECTORY
    fields = _FIELDS.get((kind, further))
    if fields is None or record.flags & fields[0] & ~form.SIZE != fields[0] & ~form.SIZE:
        raise ArchiveRefused("an item has not the fields of its type")
    if further and kind == LINK:
        if not record.source or len(record.source) > MAX_PATH or b"\0" in record.source:
            raise ArchiveRefused("an item has a malformed link")
    elif further:
        check_stored_path(record.source)
        links.check(record.source, kind)
    elif kind not in _SINGLE and (record.flags & form.IS_MASTER or not record.flags & form.MASTER):
        links.add(record.path, kind)
    return kind


def check_record(record: Record, links: LinkRules) -> str:
    """Refuse an item that breaks a rule or that Borg could not restore; return its kind.

    Chunks are not looked at. A first name of a hard link is remembered in ``links``.
    """
    flags, path = record.flags, record.path
    if len(path) > MAX_PATH or _PATH.match(path) is None:
        check_path(path)
    kind = KINDS.get(record.mode >> 12)
    if kind is None:
        raise ArchiveRefused("an item has a mode of no known type")
    if path == b"." and kind != DIRECTORY:
        raise ArchiveRefused("the item of the root itself is no directory")
    if (flags & form.USER and not record.user) or (flags & form.GROUP and not record.group):
        # Borg writes nil for what has no name, and ends when it looks up an empty one.
        raise ArchiveRefused("an item has an empty name of its owner")
    if b"\0" in record.user or b"\0" in record.group:
        # No system has such a name, and Borg ends where it looks one up.
        raise ArchiveRefused("an item has a zero byte in a name of its owner")
    fields = _FIELDS.get((kind, bool(flags & form.SOURCE)))
    if fields is None or flags & fields[0] != fields[0] or flags & ~fields[1]:
        raise ArchiveRefused("an item has not the fields of its type")
    if record.mtime < 0 or record.ctime < 0 or record.atime < 0 or record.birthtime < 0:
        raise ArchiveRefused("an item has a time out of its range")
    if flags & form.SOURCE:
        _check_source(record.source, kind, links)
    elif flags & form.IS_MASTER or (kind not in _SINGLE and not flags & form.MASTER):
        # As Borg sees it: where nothing is said, an item may be the first name of a link.
        links.add(path, kind)
    return kind


def _check_source(source: bytes, kind: str, links: LinkRules) -> None:
    """Refuse a hard link out of the archive; a symbolic link may point anywhere."""
    if kind != LINK:
        check_path(source)
        links.check(source, kind)
    elif not source or len(source) > MAX_PATH or b"\0" in source:
        raise ArchiveRefused("an item has a malformed link")
