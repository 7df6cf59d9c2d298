"""The files cache of a plan, kept on the server and synthesised for each session.

The stored file is ours: a msgpack header ``[version, archive start ns]``, records
``[path hash, size, ctime ns, mtime ns, [chunk IDs]]``, and at the end the BLAKE2b-256 of all
that: a file torn by a crash must not name wrong chunks. What the client gets is Borg's
format (``borg.cache``, FileCacheEntry), thinned by the two rules that keep a changed file
from being skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

VERSION = 2
DIGEST_BYTES = 32
PIECE = 1 << 20


def pack_record() -> Callable[[bytes, int, tuple[int, int], list[bytes]], bytes]:
    """Return what packs the record of a regular file: hash of its path, size, (ctime, mtime) in
    nanoseconds, chunk IDs. Not safe for several threads."""
    pack = msgpack.Packer(autoreset=True).pack

    def packed(path_hash: bytes, size: int, times: tuple[int, int], ids: list[bytes]) -> bytes:
        record: bytes = pack((path_hash, size, *times, ids))
        return record

    return packed


class FilesCacheWriter:
    """Writes the next files cache of a plan; it counts once :meth:`commit` ran."""

    def __init__(self, path: Path, *, started_ns: int) -> None:
        self.path = path
        self._temporary = path.with_suffix(".new")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: BinaryIO = self._temporary.open("wb", buffering=1 << 20)
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self.add([msgpack.packb([VERSION, started_ns])])

    def add(self, records: Sequence[bytes]) -> None:
        """Remember regular files; each record is one that :func:`pack_record` made."""
        packed = b"".join(records)
        self._digest.update(packed)
        self._file.write(packed)

    def commit(self) -> None:
        """Make it the plan's files cache. A lost one only costs reading files again."""
        self._file.write(self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Forget it; safe to repeat."""
        with contextlib.suppress(OSError):  # a full disk does not take the last buffer
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Tell whether a stored cache is as it was written."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - DIGEST_BYTES
        while left > 0 and (piece := file.read(min(PIECE, left))):
            digest.update(piece)
            left -= len(piece)
        return left == 0 and file.read() == digest.digest()


def _records(path: Path) -> Iterator[Any]:
    unpacker = msgpack.Unpacker(raw=False, use_list=False, max_buffer_size=1 << 30)
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - DIGEST_BYTES
        while left > 0 and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            unpacker.feed(piece)
            yield from unpacker


def synthesise(stored: Path, target: Path, known: Any, *, mode: str) -> int:
    """Write Borg's ``files`` for a session from the plan's stored cache; return the entries.

    ``known`` tells whether a chunk is advertised. ``mode`` is Borg's --files-cache value.
    Left out: files whose ctime is not older than the start of their archive, those with
    the newest time in it, and those with a chunk that is not there any more. A missing or
    damaged stored cache makes an empty one.
    """
    column = 3 if mode.startswith("mtime") else 2
    written = 0
    with target.open("wb", buffering=1 << 20) as out:
        if mode == "disabled" or not stored.exists() or not _is_whole(stored):
            return 0
        try:
            times = (record[column] for record in _records(stored) if len(record) == 5)
            newest = max(times, default=0)
            records = _records(stored)
            version, started_ns = next(records)
            if version != VERSION:
                return 0
            pack = msgpack.Packer(autoreset=True, use_bin_type=False).pack
            for path_hash, size, ctime_ns, mtime_ns, ids in records:
                changed_ns = mtime_ns if column == 3 else ctime_ns
                if ctime_ns >= started_ns or changed_ns >= newest:
                    continue
                if all(chunk_id in known for chunk_id in ids):
                    out.write(pack((path_hash, (0, 0, size, changed_ns, ids))))
                    written += 1
        except (ValueError, TypeError, msgpack.UnpackException, StopIteration):
            out.truncate(0)
            return 0
    return written
