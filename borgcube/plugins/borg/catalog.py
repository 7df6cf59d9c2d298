"""Browse an archive's files without opening the repository.

The vault leaves a catalog of each archive it admits: a zstd stream of msgpack tuples
``(path, kind, size in bytes, mtime in ns)`` in the archive's order. The first look at an
archive makes an index of it, an SQLite file with one row for each file and directory, in a
process of its own (:func:`main`); every further look is a query in a thread of the daemon.
Both are derived and private to the home. Paths are a client's words: bytes, bounded here
in depth and number, never used as paths of this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgpack
import zstandard

from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.untrusted import words

Item = tuple[bytes, str, int, int]
HEX_ID = re.compile(r"[0-9a-f]{64}")
# Components beyond this depth stay together in one name, and so do those of a tree with more
# directories than that: a client chose the paths.
MAX_DEPTH = 200
MAX_IMPLIED = 2_000_000
MAX_ENTRIES = 20_000_000
MAX_FOUND = 1000
MAX_SIZE = 1 << 62  # what fits into a row
KEPT_INDEXES = 16
BUILD_TIMEOUT_S = 540
BATCH = 20_000
READ_BYTES = 1 << 20
DIRECTORY = "d"

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE entry (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL,
    kind TEXT NOT NULL, size INTEGER NOT NULL, files INTEGER NOT NULL, mtime INTEGER,
    said TEXT NOT NULL);
"""
_INDEX = "CREATE INDEX below ON entry (parent, kind = 'd' DESC, name)"
# Which of them an index uses depends on its path: each is made once at a time.
_LOCKS = tuple(threading.Lock() for _ in range(8))


def catalog_file(state_dir: Path, repository_id: str, archive_id: str) -> Path:
    """Return where the vault keeps the catalog of an archive; raises InvalidInput."""
    if not HEX_ID.fullmatch(repository_id) or not HEX_ID.fullmatch(archive_id):
        raise InvalidInput("This is no archive's ID.")
    return state_dir / repository_id / "catalog" / f"{archive_id}.zst"


def read_catalog(path: Path) -> Iterator[Item]:
    """Yield what is in a catalog; raises ValueError for a damaged one."""
    unpacker = msgpack.Unpacker(raw=False, use_list=False, max_buffer_size=64 << 20)
    with zstandard.open(path, "rb") as source:
        while block := source.read(READ_BYTES):
            unpacker.feed(block)
            yield from unpacker


class _Tree:
    """Gives each path a row under its directory, making directories that were not listed."""

    def __init__(self) -> None:
        self.directories: dict[tuple[int, bytes], int] = {}
        self.rows: dict[int, list[Any]] = {}  # of directories, written at the end
        self.last = 0
        self.implied = 0
        self._above, self._parent = b"", 0

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
            known = self.directories.get((parent, name))
            if known is None:
                if self.implied >= MAX_IMPLIED:
                    return parent, b"/".join(parts[at:])
                self.implied += 1
                known = self.directory(parent, name, None)
            parent = known
        if b"/" not in parts[-1]:
            self._above, self._parent = above, parent
        return parent, parts[-1]

    def directory(self, parent: int, name: bytes, mtime: int | None) -> int:
        """Return the number of a directory, made or known."""
        known = self.directories.get((parent, name))
        if known is None:
            self.last += 1
            known = self.directories[(parent, name)] = self.last
            self.rows[known] = [parent, name, 0, 0, mtime]
        elif mtime is not None:
            self.rows[known][4] = mtime
        return known

    def sums(self) -> None:
        """Add up sizes and counts: a directory's number is above that of its parent."""
        for number in sorted(self.rows, reverse=True):
            parent, _name, size, files, _mtime = self.rows[number]
            if parent:
                self.rows[parent][2] += size
                self.rows[parent][3] += files


def build(items: Iterable[Item], database: Path) -> None:
    """Write the index of a catalog's items."""
    connection = sqlite3.connect(database)
    connection.executescript(_TABLES)
    insert = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    tree = _Tree()
    batch: list[tuple[Any, ...]] = []

    def row(number: int, parent: int, name: bytes, kind: str, *rest: Any) -> None:
        said = name.decode("utf-8", "replace").lower()
        batch.append((number, parent, name, kind, *rest, said))
        if len(batch) >= BATCH:
            connection.executemany(insert, batch)
            batch.clear()

    for count, (path, kind, size, mtime) in enumerate(items):
        if count >= MAX_ENTRIES:
            break
        parent, name = tree.place(path)
        when = mtime if -(1 << 63) <= mtime < 1 << 63 else None
        if kind == DIRECTORY:
            tree.directory(parent, name, when)
            continue
        tree.last += 1
        row(tree.last, parent, name, kind, min(size, MAX_SIZE), 1, when)
        if parent:
            tree.rows[parent][2] += size
            tree.rows[parent][3] += 1
    tree.sums()
    for number, (parent, name, size, files, when) in tree.rows.items():
        row(number, parent, name, DIRECTORY, min(size, MAX_SIZE), files, when)
    connection.executemany(insert, batch)
    connection.execute(_INDEX)
    connection.commit()
    connection.close()


def _index_of(catalog: Path) -> Path:
    """Return the index of a catalog, made if it is not there; one at a time for each."""
    directory = catalog.parent.parent / "browse"
    database = directory / f"{catalog.stem}.db"
    with _LOCKS[hash(database) % len(_LOCKS)]:
        if database.exists() and database.stat().st_mtime_ns >= catalog.stat().st_mtime_ns:
            os.utime(database)  # the longest unused goes first
            return database
        directory.mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "borgcube.plugins.borg.catalog", str(catalog), str(database)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=BUILD_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BorgCubeError(
                "The list of files of this archive cannot be read.",
                next_step="Have it read from the repository again.",
            )
        _prune(directory)
        return database


def _prune(directory: Path) -> None:
    found = sorted(directory.glob("*.db"), key=lambda path: -path.stat().st_mtime_ns)
    for old in found[KEPT_INDEXES:]:
        old.unlink(missing_ok=True)


def key_of(path: bytes) -> str:
    """Return a path as text that any form or address carries unchanged."""
    return quote(path, safe="/")


def path_of(key: str) -> bytes:
    """Return the path of a key."""
    return unquote_to_bytes(key)


def _entry(path: bytes, row: sqlite3.Row) -> dict[str, Any]:
    return {
        "key": key_of(path), "name": words(row["name"].decode("utf-8", "replace"), limit=4096),
        "kind": row["kind"], "size": row["size"], "files": row["files"],
        "mtime_ns": row["mtime"],
    }  # fmt: skip


def _find_directory(connection: sqlite3.Connection, path: bytes) -> int:
    number = 0
    for name in path.split(b"/") if path else ():
        row = connection.execute(
            "SELECT id FROM entry WHERE parent = ? AND kind = 'd' AND name = ?", (number, name)
        ).fetchone()
        if row is None:
            raise InvalidInput("There is no such directory in this archive.", field="key",
                               next_step="Begin at its top.")  # fmt: skip
        number = row["id"]
    return number


def _path_of(connection: sqlite3.Connection, row: sqlite3.Row) -> bytes:
    parts = [row["name"]]
    parent = row["parent"]
    while parent:
        above = connection.execute(
            "SELECT parent, name FROM entry WHERE id = ?", (parent,)
        ).fetchone()
        parts.append(above["name"])
        parent = above["parent"]
    return b"/".join(reversed(parts))


def browse(
    catalog: Path, *, key: str = "", find: str = "", start: int = 0, limit: int = 200
) -> dict[str, Any] | None:
    """Return one page of a directory, or of what is found by name in the whole archive.

    None when there is no catalog. See ``core.engines.Engine.browse`` for the result.
    """
    if not catalog.exists():
        return None
    try:
        database = _index_of(catalog)
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)
        ) as connection:
            connection.row_factory = sqlite3.Row
            if find:
                return _found(connection, find, start=start, limit=limit)
            return _listed(connection, path_of(key).strip(b"/"), start=start, limit=limit)
    except (sqlite3.Error, FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise BorgCubeError(f"The list of files cannot be read: {error}.",
                            next_step="Try again in a moment.") from error  # fmt: skip


def _listed(
    connection: sqlite3.Connection, path: bytes, *, start: int, limit: int
) -> dict[str, Any]:
    number = _find_directory(connection, path)
    rows = connection.execute(
        "SELECT * FROM entry WHERE parent = ? ORDER BY kind = 'd' DESC, name LIMIT ? OFFSET ?",
        (number, limit, start),
    ).fetchall()
    (total,) = connection.execute(
        "SELECT count(*) FROM entry WHERE parent = ?", (number,)
    ).fetchone()
    before = path + b"/" if path else b""
    return {"entries": [_entry(before + row["name"], row) for row in rows],
            "total": total, "cut": False}  # fmt: skip


def _found(connection: sqlite3.Connection, find: str, *, start: int, limit: int) -> dict[str, Any]:
    # One more than can be shown says that there are more.
    rows = connection.execute(
        "SELECT * FROM entry WHERE instr(said, ?) LIMIT ?", (find.lower(), MAX_FOUND + 1)
    ).fetchall()
    shown = []
    for row in rows[start : start + limit]:
        path = _path_of(connection, row)
        entry = _entry(path, row)
        shown.append({**entry, "name": words(path.decode("utf-8", "replace"), limit=4096)})
    return {"entries": shown, "total": min(len(rows), MAX_FOUND), "cut": len(rows) > MAX_FOUND}


def main(catalog: Path, database: Path) -> None:
    """Make the index of a catalog, whole or not at all."""
    os.umask(0o077)
    new = database.with_suffix(f".{os.getpid()}.new")
    try:
        build(read_catalog(catalog), new)
        new.replace(database)
    finally:
        new.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
