"""Make the index of a catalog: an SQLite file with one row for each file and directory.

Runs in a process of its own (:func:`main`, started by ``catalog.py``) with limits on its memory
and time. The paths are a client's: their number, depth and length are bounded by what they take
in bytes, in memory and on disk. What does not fit is left out, and the index says so.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sqlite3
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import zstandard

from borgcube.core import memory
from borgcube.core.budget import Disk
from borgcube.core.errors import JobFailed

Item = tuple[bytes, str, int, int]
# Components beyond this depth stay together in one name, and so do those of a tree with more
# directories than fit.
MAX_DEPTH = 200
MAX_SIZE = 1 << 62  # what fits into a row
# What this process may take, and of that its directories; each of them takes about so much.
MEMORY_BYTES = 1 << 30
DIRECTORIES_BYTES = 256 << 20
DIRECTORY_BYTES = 160
# The index on disk: a row has its name up to three times, and some numbers.
INDEX_BYTES = 4 << 30
ROW_BYTES = 100
MAX_NAME = 64 * 1024  # bytes; a longer path, which no vault admits, is left out
MAX_SAID = 1024  # characters of a name that a search looks at
BATCH_BYTES = 4 << 20
CACHE_KIB = 64 * 1024
READ_BYTES = 1 << 20
MAX_ENTRY_BYTES = 4 << 20
CPU_SECONDS = 600
DIRECTORY = "d"
UNKNOWN = -(1 << 63)
FIRST_FILE = 1 << 40  # rows of directories have smaller numbers
NO_ROOM = 3  # exit code; what it prints then is for a person

_TABLES = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -{CACHE_KIB};
CREATE TABLE entry (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL,
    kind TEXT NOT NULL, size INTEGER NOT NULL, files INTEGER NOT NULL, mtime INTEGER,
    said TEXT NOT NULL);
"""
_INDEX = "CREATE INDEX below ON entry (parent, kind = 'd' DESC, name)"


def read_catalog(path: Path) -> Iterator[Item]:
    """Yield what is in a catalog; raises ValueError for a damaged one."""
    unpacker = msgpack.Unpacker(raw=False, use_list=False, max_buffer_size=MAX_ENTRY_BYTES)
    with zstandard.open(path, "rb") as source:
        while block := source.read(READ_BYTES):
            unpacker.feed(block)
            yield from unpacker


class _Rows:
    """Writes rows, some at a time, and counts what they take on disk."""

    def __init__(self, connection: sqlite3.Connection, disk: Disk) -> None:
        self._connection, self._disk = connection, disk
        self._batch: list[tuple[Any, ...]] = []
        self._waiting = 0

    def has_room(self, name: bytes) -> bool:
        """Tell whether a row still fits into the index."""
        return self._disk.written + ROW_BYTES + 4 * len(name) <= INDEX_BYTES

    def add(self, number: int, parent: int, name: bytes, kind: str, *rest: Any) -> None:
        """Write a row: size, files and mtime are the rest."""
        said = name[: 4 * MAX_SAID].decode("utf-8", "replace")[:MAX_SAID].lower()
        self._batch.append((number, parent, name, kind, *rest, said))
        self._disk.spend(ROW_BYTES + 3 * len(name) + len(said))
        self._waiting += ROW_BYTES + 5 * len(name)
        if self._waiting >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._connection.executemany(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._batch
        )
        self._batch.clear()
        self._waiting = 0


class _Tree:
    """Gives each path a row under its directory, making directories that were not listed.

    In memory a directory is four numbers and a digest; its name is in its row.
    """

    def __init__(self, rows: _Rows) -> None:
        from borg.hashindex import ChunkIndex  # Borg's hash table: 44 bytes for each entry

        self._rows = rows
        self._known = ChunkIndex()
        self.parents, self.sizes = array("Q", [0]), array("Q", [0])
        self.files, self.mtimes = array("Q", [0]), array("q", [UNKNOWN])
        self.cut = False
        self._above, self._parent = b"", 0

    @property
    def full(self) -> bool:
        """Whether no further directory fits into memory."""
        return len(self.parents) * DIRECTORY_BYTES >= DIRECTORIES_BYTES

    def place(self, path: bytes) -> tuple[int, bytes]:
        """Return the number of a path's directory (0 is the top) and its name in it."""
        above, _, name = path.rpartition(b"/")
        if above == self._above:  # files of one directory follow each other
            return self._parent, name
        parts = path.split(b"/")
        if len(parts) > MAX_DEPTH:
            parts = [*parts[: MAX_DEPTH - 1], b"/".join(parts[MAX_DEPTH - 1 :])]
        parent = 0
        for at, name in enumerate(parts[:-1]):
            known = self.directory(parent, name, None)
            if known is None:
                return parent, b"/".join(parts[at:])
            parent = known
        if b"/" not in parts[-1]:
            self._above, self._parent = above, parent
        return parent, parts[-1]

    def directory(self, parent: int, name: bytes, mtime: int | None) -> int | None:
        """Return the number of a directory, made or known; None when there is no more room."""
        key = hashlib.blake2b(parent.to_bytes(8, "little") + name, digest_size=32).digest()
        entry = self._known.get(key)
        if entry is None:
            if self.full or not self._rows.has_room(name):
                self.cut = True
                return None
            number = len(self.parents)
            self._known[key] = (1, number, 0)
            for column, value in ((self.parents, parent), (self.sizes, 0), (self.files, 0)):
                column.append(value)
            self.mtimes.append(UNKNOWN)
            self._rows.add(number, parent, name, DIRECTORY, 0, 0, None)
        else:
            number = entry[1]
        if mtime is not None:
            self.mtimes[number] = mtime
        return number

    def count(self, directory: int, size: int) -> None:
        """Count a file in its directory."""
        self.sizes[directory] = min(self.sizes[directory] + size, MAX_SIZE)
        self.files[directory] += 1

    def sums(self) -> Iterator[tuple[int, int, int | None, int]]:
        """Add up sizes and counts, a directory's number being above that of its parent; yield
        size, files, mtime and number of each."""
        for number in range(len(self.parents) - 1, 0, -1):
            parent = self.parents[number]
            if parent:
                self.sizes[parent] = min(self.sizes[parent] + self.sizes[number], MAX_SIZE)
                self.files[parent] += self.files[number]
            mtime = self.mtimes[number]
            yield (self.sizes[number], self.files[number],
                   None if mtime == UNKNOWN else mtime, number)  # fmt: skip


def build(items: Iterable[Item], database: Path) -> bool:
    """Write the index of a catalog's items; return whether all of them are in it.

    Its ``user_version`` is 1 when something was left out. Raises JobFailed when the disk has no
    room for it.
    """
    connection = sqlite3.connect(database, isolation_level=None)
    connection.executescript(_TABLES + "BEGIN;")
    disk = Disk(database.parent, what="The list of files of an archive", most=2 * INDEX_BYTES,
                kind="no-room-for-index")  # fmt: skip
    rows = _Rows(connection, disk)
    tree = _Tree(rows)
    number, whole = FIRST_FILE, True
    for path, kind, size, mtime in items:
        if len(path) > MAX_NAME:
            whole = False
            continue
        if not rows.has_room(path):
            whole = False
            break
        parent, name = tree.place(path)
        when = mtime if UNKNOWN < mtime < 1 << 63 else None
        if kind == DIRECTORY:
            tree.directory(parent, name, when)
            continue
        number += 1
        rows.add(number, parent, name, kind, min(size, MAX_SIZE), 1, when)
        if parent:
            tree.count(parent, min(size, MAX_SIZE))
    rows.flush()
    connection.executemany(
        "UPDATE entry SET size = ?, files = ?, mtime = ? WHERE id = ?", tree.sums()
    )
    whole = whole and not tree.cut
    connection.execute(_INDEX)
    connection.execute("COMMIT")
    if not whole:
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    return whole


def main(catalog: Path, database: Path) -> int:
    """Make the index of a catalog in ``database``; return the exit code."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    memory.limit(MEMORY_BYTES)
    try:
        build(read_catalog(catalog), database)
    except JobFailed as error:
        print(error)
        return NO_ROOM
    except (MemoryError, sqlite3.OperationalError) as error:
        if isinstance(error, sqlite3.OperationalError) and "memory" not in str(error):
            raise
        print(f"Its list of files takes more than {MEMORY_BYTES >> 20} MiB of memory to be read.")
        return NO_ROOM
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
