"""Bounds in bytes that several rooms share. Knows no client, no engine and no process.

What counts items, answers or lines bounds nothing: one item can have 27,000 references, one
answer 20 MiB. So whatever others can fill is counted here in bytes, and who reaches a bound
is told so as a limit of this server's, never as a client's misdeed.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import IO

from borgcube.core.errors import JobFailed, Problem

# What BorgCube's own files must leave free of the home's file system; of a small one, its share.
SPARE_BYTES = 1 << 30
SPARE_PERCENT = 5
CHECK_EVERY_BYTES = 16 << 20


class Room:
    """How many bytes may be under way at once. Safe for threads.

    One piece is always let in, however large, so that nothing waits for ever: the bound is
    ``most`` bytes, or one piece.
    """

    def __init__(self, most: int) -> None:
        self._most, self._used, self.peak = most, 0, 0
        self._changed = threading.Condition()

    def _take(self, count: int) -> None:
        self._used += count
        self.peak = max(self.peak, self._used)

    def acquire(self, count: int) -> None:
        """Wait until ``count`` bytes fit, and take their room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= self._most)
            self._take(count)

    def try_acquire(self, count: int, *, even_if_full: bool = False) -> bool:
        """Take the room of ``count`` bytes if they fit, or even if not; tell whether."""
        with self._changed:
            if self._used and self._used + count > self._most and not even_if_full:
                return False
            self._take(count)
            return True

    def release(self, count: int) -> None:
        """Give the room of ``count`` bytes back."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()


class Disk:
    """What one piece of work may write into the home: up to ``most`` bytes, and never the last
    of its free space. ``what``, ``kind`` and ``next_step`` are for the cause of the job that ends
    for it."""

    def __init__(
        self, directory: Path, *, what: str, most: int, kind: str,
        next_step: str = "Take fewer paths of the archive, or use plain borg for all of it.",
    ) -> None:  # fmt: skip
        self._next_step = next_step
        self._directory, self._what, self._most, self._kind = directory, what, most, kind
        self.written = 0
        self._check_at = 0

    def spend(self, count: int) -> None:
        """Count bytes before they are written; raises JobFailed when it is too much."""
        self.written += count
        if self.written > self._most:
            raise JobFailed(
                self._kind, Problem.SERVER,
                f"{self._what} is larger than the {self._most >> 20} MiB that BorgCube keeps "
                "room for.",
                next_step=self._next_step,
            )  # fmt: skip
        if self.written >= self._check_at:
            self._check_at = self.written + CHECK_EVERY_BYTES
            found = os.statvfs(self._directory)
            free = found.f_bavail * found.f_frsize
            spare = min(SPARE_BYTES, found.f_blocks * found.f_frsize * SPARE_PERCENT // 100)
            if free < spare + count:
                raise JobFailed(
                    self._kind, Problem.SERVER,
                    f"{self._what} needs more room: {self._directory} has {free >> 20} MiB free, "
                    f"and {spare >> 20} MiB are to stay so.",
                    next_step="Make room in the home, then run the job again.",
                )  # fmt: skip


class Spool:
    """Bytes that wait on disk, in a file without a name: nothing of it outlives its process."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._disk = disk
        # It is nameless at once (O_TMPFILE, or unlinked before it is used).
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self._lock = threading.Lock()
        self._end = 0

    def add(self, data: bytes) -> tuple[int, int]:
        """Keep bytes; return where they are, for :meth:`get`. Raises JobFailed or OSError."""
        self._disk.spend(len(data))
        with self._lock:
            self._file.seek(self._end)
            self._file.write(data)
            place = (self._end, len(data))
            self._end += len(data)
            return place

    def get(self, place: tuple[int, int]) -> bytes:
        """Return what :meth:`add` kept."""
        start, length = place
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)

    def close(self) -> None:
        """Give the room back; safe to repeat."""
        self._file.close()
