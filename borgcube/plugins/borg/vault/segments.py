"""Read a segment file of a repository, entry by entry, with file handles of its own.

Borg's reader shares its handles with whoever stores chunks, and stops at the first damage.
This one goes on behind it where the index says the next object is. Pure: only a file is read.

An entry is ``crc32 (4), size (4), tag (1)``, for PUT and DELETE then the key (32), then data;
the checksum covers all but itself (Borg 1.4, "Internals, Data structures, Segments").
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"BORG_SEG"
HEADER = struct.Struct("<IIB")
PUT, DELETE, COMMIT = 0, 1, 2
KEY_BYTES = 32
PUT_BYTES = HEADER.size + KEY_BYTES
MAX_ENTRY = 20 << 20  # Borg's MAX_OBJECT_SIZE
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One entry as it is stored. ``problem`` says why it cannot even be looked at; ``raw`` is
    empty then, and ``key`` what the index says is here."""

    offset: int
    tag: int
    key: bytes
    raw: bytes
    problem: str = ""

    @property
    def checksum_fits(self) -> bool:
        """Whether the stored checksum is that of the rest; takes a while for large entries."""
        crc: int = HEADER.unpack_from(self.raw)[0]
        return zlib.crc32(memoryview(self.raw)[4:]) == crc


def segment_path(repository: Path, number: int, *, per_directory: int) -> Path:
    """Return where Borg keeps a segment."""
    return repository / "data" / str(number // per_directory) / str(number)


def segment_sizes(repository: Path) -> dict[int, int]:
    """Return number -> bytes of every segment file there is."""
    found: dict[int, int] = {}
    with os.scandir(repository / "data") as directories:
        for directory in directories:
            if directory.name.isdigit() and directory.is_dir():
                with os.scandir(directory.path) as files:
                    for file in files:
                        if file.name.isdigit():
                            found[int(file.name)] = file.stat().st_size
    return found


def _parsed(header: bytes, left: int) -> tuple[int, int] | None:
    """Return (size, tag) of an entry that fits into ``left`` bytes, or None."""
    if len(header) < HEADER.size:
        return None
    _, size, tag = HEADER.unpack(header)
    least = HEADER.size if tag == COMMIT else PUT_BYTES
    if tag not in (PUT, DELETE, COMMIT) or not least <= size <= min(MAX_ENTRY, left):
        return None
    return size, tag


def is_readable(path: Path) -> bool:
    """Tell whether every entry of a segment file has its checksum; False for a file that the
    disk does not read. Raises FileNotFoundError."""
    try:
        return all(not entry.problem and entry.checksum_fits for entry in entries(path, {}))
    except FileNotFoundError:
        raise
    except OSError:
        return False


def entries(path: Path, live: Mapping[int, bytes]) -> Iterator[Entry]:
    """Yield all entries of a segment file, in order.

    ``live`` maps the offset of each object that the index refers to, to its key. Where the
    file makes no sense, an Entry with a ``problem`` is yielded for every live object that is
    lost by it, or one without a key if none is; it goes on at the next live object. Raises
    OSError.
    """
    wanted = sorted(live)
    with path.open("rb", buffering=READ_BYTES) as file:
        end = os.fstat(file.fileno()).st_size
        offset = len(MAGIC)
        if file.read(len(MAGIC)) != MAGIC:
            yield Entry(0, -1, b"", b"", "it does not begin as a segment does")
        met = 0  # how many of the live objects lie behind
        while offset < end:
            file.seek(offset)
            header = file.read(HEADER.size)
            found = _parsed(header, end - offset)
            following = wanted[met] if met < len(wanted) else end
            if (
                found is not None
                and offset <= following < offset + found[0]
                and (offset != following or found[1] != PUT)
            ):
                found = None  # it reaches over an object, or is none where one must be
            if found is None:
                if offset == following:
                    yield Entry(offset, -1, live[offset], b"", "its header is damaged")
                    met += 1
                    following = wanted[met] if met < len(wanted) else end
                else:
                    yield Entry(offset, -1, b"", b"", "an entry's header is damaged")
                offset = following
                continue
            size, tag = found
            raw = header + file.read(size - HEADER.size)
            key = raw[HEADER.size : PUT_BYTES] if tag != COMMIT else b""
            if offset == following:
                met += 1
                if key != live[offset]:
                    yield Entry(offset, -1, live[offset], b"", "its key is damaged")
                    offset += size
                    continue
            yield Entry(offset, tag, key, raw)
            offset += size
        for lost in wanted[met:]:
            yield Entry(lost, -1, live[lost], b"", "the segment ends before it")
