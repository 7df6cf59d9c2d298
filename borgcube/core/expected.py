"""The list of what all files of an archive must be like once restored, on disk.

Written by whoever reads the archive, read by the drill that compares. A file is one line, a
JSON object, and then its pieces, some to a line: a file of terabytes has a million of them, and
neither side has more than a line of them in memory. The list's size is bounded.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from borgcube.core.budget import Disk

PIECES_A_LINE = 1000
MAX_BYTES = 16 << 30
MAX_LINE = 8 << 20
Piece = tuple[str, int]  # ID in hex, length in bytes


class ExpectedWriter:
    """Writes the list to a file that is not there yet."""

    def __init__(self, path: Path) -> None:
        self._disk = Disk(
            path.parent, what="The list of files that this drill compares", most=MAX_BYTES,
            kind="no-room-for-drill", next_step="Restore a sample of the archive instead.",
        )  # fmt: skip
        self._file = path.open("x", encoding="ascii")

    def add(self, facts: dict[str, Any], pieces: Iterable[Piece]) -> None:
        """Write a file: ``path``, ``size``, ``mode``, ``mtime_ns``, and its pieces in order.
        Raises JobFailed when there is no room."""
        self._line(facts)
        rest = iter(pieces)
        while line := list(itertools.islice(rest, PIECES_A_LINE)):
            self._line(line)

    def _line(self, data: Any) -> None:
        text = json.dumps(data) + "\n"
        self._disk.spend(len(text))
        self._file.write(text)

    def close(self) -> None:
        """Write what waits. Raises OSError."""
        self._file.close()


def read_expected(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each file with its ``pieces``, an iterator that is over with the next file."""
    with path.open(encoding="ascii") as file:
        lines = (json.loads(line) for line in iter(lambda: file.readline(MAX_LINE), ""))
        following = next(lines, None)
        while following is not None:
            facts, following = following, None

            def pieces() -> Iterator[Piece]:
                nonlocal following
                for line in lines:
                    if isinstance(line, dict):
                        following = line
                        return
                    yield from line

            left = pieces()
            yield {**facts, "pieces": left}
            for _ in left:  # of a file that differs, not all were read
                pass
