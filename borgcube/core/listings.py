"""A list of files that a job leaves beside its log: written by its worker, read in pages.

One JSON line an entry: ``[kind, size or null, path]``. The file is bounded; what it holds is
a client's word, made harmless by whoever writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

NAME = "listing.jsonl"
MAX_BYTES = 64 << 20
FILE, DIRECTORY, OTHER, EXCLUDED = "file", "directory", "other", "excluded"
KINDS = (FILE, DIRECTORY, OTHER, EXCLUDED)
MAX_PAGE = 1000


@dataclass(frozen=True)
class Entry:
    """One path; ``size`` in bytes where it is known."""

    kind: str
    path: str
    size: int | None = None

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"kind": self.kind, "path": self.path, "size": self.size}


class ListingWriter:
    """Writes the listing of one job, up to a bound; a context manager."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: TextIO = (directory / NAME).open("w", encoding="utf-8")
        self._left = max_bytes
        self.written = 0
        self.full = False

    def __enter__(self) -> ListingWriter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def write(self, entry: Entry) -> None:
        """Write an entry, or note that there is no room for it. Raises OSError."""
        line = json.dumps([entry.kind, entry.size, entry.path], ensure_ascii=False) + "\n"
        self._left -= len(line.encode("utf-8", "replace"))
        if self.full or self._left < 0:
            self.full = True
            return
        self._file.write(line)
        self.written += 1


def _lines(directory: Path) -> Iterator[str]:
    try:
        with (directory / NAME).open(encoding="utf-8", errors="replace") as source:
            yield from source
    except FileNotFoundError:
        return


def page(
    directory: Path, *, find: str = "", kind: str = "", start: int = 0, limit: int = 100
) -> dict[str, Any]:
    """Return ``entries`` from the ``start``-th match on, and ``matches`` in all.

    ``find`` is looked for in paths, whatever the case; ``kind`` is one of KINDS, or
    ``included`` for all that are not left out, or empty for all.
    """
    wanted = json.dumps(find, ensure_ascii=False)[1:-1].lower()
    found: list[dict[str, Any]] = []
    matches = 0
    for line in _lines(directory):
        if wanted and wanted not in line.lower():
            continue
        try:
            this_kind, size, path = json.loads(line)
        except ValueError:
            continue  # cut short by a full disk
        if wanted and find.lower() not in path.lower():
            continue
        if kind and this_kind != kind and (kind != "included" or this_kind == EXCLUDED):
            continue
        if start <= matches < start + limit:
            found.append(Entry(this_kind, path, size).as_data())
        matches += 1
    return {"entries": found, "matches": matches}
