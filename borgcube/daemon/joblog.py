"""A job's log: ``log.txt`` for people and ``log.jsonl`` beside it, both capped in size.

A client may have chosen any byte of a message: control characters are escaped, so that
no line can forge another or drive a terminal. A full disk costs lines, not the job.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from borgcube.core.envelope import now
from borgcube.core.untrusted import escaped

MAX_MESSAGE = 20_000
MAX_PIECE = 1 << 18
TEXT, LINES = "log.txt", "log.jsonl"


class JobLog:
    """The two files of one job; may be used from several threads."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._left = max_bytes
        self._lock = threading.Lock()
        self._text: TextIO = (directory / TEXT).open("a", encoding="utf-8")
        self._lines: TextIO = (directory / LINES).open("a", encoding="utf-8")
        self._lost = 0

    def write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        """Write one entry; several lines of text for a message with newlines."""
        at = now()
        shown = [escaped(line) for line in message[:MAX_MESSAGE].split("\n")]
        extra = "".join(f" {k}={escaped(str(v)[:MAX_MESSAGE])}" for k, v in fields.items())
        text = "".join(f"{at} {level[:10]:7} {line}{extra}\n" for line in shown)
        entry = {
            "at": at,
            "level": level[:10],
            "message": "\n".join(shown),
            **(
                {"fields": {k: escaped(str(v)[:MAX_MESSAGE]) for k, v in fields.items()}}
                if fields
                else {}
            ),
        }
        with self._lock:
            if self._left <= 0:
                return
            # Each file is capped: JSON writes some characters longer.
            line = json.dumps(entry) + "\n"
            self._left -= max(len(text.encode()), len(line))
            if self._left <= 0:
                text = f"{at} warning the log reached its size limit and ends here\n"
                entry = {"at": at, "level": "warning", "message": text.strip()}
                line = json.dumps(entry) + "\n"
            if self._lost:
                text = f"{at} warning {self._lost} lines before this one could not be kept\n{text}"
            # What is not taken now stays in the file's buffer, or is lost with it.
            try:
                self._text.write(text)
                self._text.flush()
                self._lines.write(line)
                self._lines.flush()
                self._lost = 0
            except OSError:
                self._lost += 1

    def close(self) -> None:
        """Close both files."""
        with self._lock:
            for file in (self._text, self._lines):
                try:
                    file.close()
                except OSError:
                    continue  # the last lines did not fit


def tail(directory: Path, limit: int) -> list[str]:
    """Return the last ``limit`` lines of a job's log; empty when there is none."""
    try:
        with (directory / TEXT).open("rb") as source:
            source.seek(0, 2)
            size = source.tell()
            source.seek(max(0, size - limit * 400 - 4096))
            return source.read().decode("utf-8", "replace").splitlines()[-limit:]
    except FileNotFoundError:
        return []


def read_from(directory: Path, offset: int, limit: int) -> tuple[list[str], int]:
    """Return up to ``limit`` whole lines from the byte ``offset`` on, at most 256 KiB, and
    the offset after them. A line that is longer, or not at its end yet, comes in pieces or
    with the next call."""
    try:
        with (directory / TEXT).open("rb") as source:
            source.seek(offset)
            data = source.read(MAX_PIECE)
    except FileNotFoundError:
        return [], offset
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) == MAX_PIECE:
        whole = MAX_PIECE
    pieces = data[:whole].splitlines(keepends=True)[:limit]
    following = offset + sum(map(len, pieces))
    return [piece.decode("utf-8", "replace").rstrip("\r\n") for piece in pieces], following


def search(directory: Path, words: str, limit: int) -> tuple[list[str], int]:
    """Return the last ``limit`` lines that contain ``words``, whatever the case, and how
    many do in all. A very long line is looked at as its pieces."""
    wanted, found, matches = words.lower(), deque[str](maxlen=limit), 0
    try:
        with (directory / TEXT).open("rb") as source:
            while line := source.readline(MAX_PIECE):
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                if wanted in text.lower():
                    matches += 1
                    found.append(text)
    except FileNotFoundError:
        pass
    return list(found), matches
