"""Browse an archive's files without opening the repository.

The vault leaves a catalog of each archive it admits: a zstd stream of msgpack tuples
``(path, kind, size in bytes, mtime in ns)`` in the archive's order. The first look at an
archive makes an index of it (``catalogindex.py``, in a process of its own with limits); every
further look is a query in a thread of the daemon. Both are derived and private to the home.
Paths are a client's words: bytes, never used as paths of this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.untrusted import words

HEX_ID = re.compile(r"[0-9a-f]{64}")
MAX_FOUND = 1000
BUILDER = "borgcube.plugins.borg.catalogindex"
KEPT_INDEXES = 16
KEPT_BYTES = 8 << 30  # of all indexes of a repository; the newest stays in any case
BUILD_TIMEOUT_S = 540
NO_ROOM = 3  # exit code of ``catalogindex.py``, which says the rest
MAX_REASON = 1000
# Which of them an index uses depends on its path: each is made once at a time.
_LOCKS = tuple(threading.Lock() for _ in range(8))


def catalog_file(state_dir: Path, repository_id: str, archive_id: str) -> Path:
    """Return where the vault keeps the catalog of an archive; raises InvalidInput."""
    if not HEX_ID.fullmatch(repository_id) or not HEX_ID.fullmatch(archive_id):
        raise InvalidInput("This is no archive's ID.")
    return state_dir / repository_id / "catalog" / f"{archive_id}.zst"


def _index_of(catalog: Path) -> Path:
    """Return the index of a catalog, made if it is not there; one at a time for each."""
    directory = catalog.parent.parent / "browse"
    database = directory / f"{catalog.stem}.db"
    with _LOCKS[hash(database) % len(_LOCKS)]:
        if database.exists() and database.stat().st_mtime_ns >= catalog.stat().st_mtime_ns:
            os.utime(database)  # the longest unused goes first
            return database
        directory.mkdir(mode=0o700, exist_ok=True)
        sweep(directory)
        new = directory / f"{catalog.stem}.{secrets.token_hex(4)}.new"
        try:
            done = subprocess.run(
                [sys.executable, "-m", BUILDER, str(catalog), str(new)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                timeout=BUILD_TIMEOUT_S, check=False,
                # What SQLite sorts in files lies beside the index, not in /tmp.
                env={**os.environ, "SQLITE_TMPDIR": str(directory)},
            )  # fmt: skip
            if done.returncode == NO_ROOM:
                raise BorgCubeError(done.stdout.decode("utf-8", "replace")[:MAX_REASON].strip())
            if done.returncode != 0:
                raise BorgCubeError(
                    "The list of files of this archive cannot be read.",
                    next_step="Have it read from the repository again.",
                )
            new.replace(database)
        finally:
            new.unlink(missing_ok=True)  # also of a builder that was killed
        _prune(directory)
        return database


def sweep(directory: Path) -> None:
    """Remove what builders left that nobody waits for any more: those of a daemon that died."""
    for left in directory.glob("*.new"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > BUILD_TIMEOUT_S + 60:
                left.unlink()


def _prune(directory: Path) -> None:
    """Keep the indexes that were used last, within both bounds."""
    found = sorted(directory.glob("*.db"), key=lambda path: -path.stat().st_mtime_ns)
    total = 0
    for number, path in enumerate(found):
        total += path.stat().st_size
        if number and (number >= KEPT_INDEXES or total > KEPT_BYTES):
            path.unlink(missing_ok=True)


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
            "total": total, "cut": _is_cut(connection)}  # fmt: skip


def _is_cut(connection: sqlite3.Connection) -> bool:
    """Tell whether the index lacks some of the archive."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version)


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
    return {"entries": shown, "total": min(len(rows), MAX_FOUND),
            "cut": len(rows) > MAX_FOUND or _is_cut(connection)}  # fmt: skip
