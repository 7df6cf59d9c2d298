"""Hard-link sources that a restore of selected paths leaves out, on disk.

A selected name may be a hard link to a file whose own first name is not selected: then it has
to become the file. Which sources will be wanted is not known until the links come, and an
archive can have any number of sources, each with a long list of chunks. So both wait in files
without names; in memory there is one list at a time and SQLite's cache.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import msgpack

from borgcube.core.budget import Disk, Spool

CACHE_KIB = 16 * 1024
ROW_BYTES = 80  # of a source, beside the name it moves to


def _key(path: bytes) -> bytes:
    return hashlib.blake2b(path, digest_size=16).digest()


class Sources:
    """Chunk lists by the path of their file, and which selected name took one over."""

    def __init__(self, directory: Path, disk: Disk, spool: Spool) -> None:
        self._disk, self._spool = disk, spool
        file = directory / "sources"
        # The thread that prepares a session is not always the one that closes it.
        self._rows = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._rows.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;"
            f"PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -{CACHE_KIB};"
            "CREATE TABLE source (key BLOB PRIMARY KEY, start INTEGER, length INTEGER,"
            " moved BLOB) WITHOUT ROWID; BEGIN;"
        )
        os.unlink(file)

    def add(self, path: bytes, chunks: Any) -> None:
        """Remember the list of chunks of a file; raises JobFailed when there is no room."""
        self._disk.spend(ROW_BYTES)
        place = self._spool.add(msgpack.packb(chunks, use_bin_type=False))
        self._rows.execute("REPLACE INTO source VALUES (?, ?, ?, NULL)", (_key(path), *place))

    def find(self, source: bytes) -> tuple[bytes | None, tuple[int, int]] | None:
        """Return the name that a source moved to, if any, and where its list of chunks is."""
        row = self._rows.execute(
            "SELECT moved, start, length FROM source WHERE key = ?", (_key(source),)
        ).fetchone()
        return None if row is None else (row[0], (row[1], row[2]))

    def chunks(self, place: tuple[int, int]) -> Any:
        """Return a list of chunks."""
        return msgpack.unpackb(self._spool.get(place), raw=True, use_list=False)

    def move(self, source: bytes, path: bytes) -> None:
        """Note the selected name that has the content of a source now."""
        self._disk.spend(len(path))
        self._rows.execute("UPDATE source SET moved = ? WHERE key = ?", (path, _key(source)))

    def close(self) -> None:
        """Give everything back; safe to repeat."""
        self._rows.close()
