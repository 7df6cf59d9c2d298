"""What a fenced program uses, looked at from beside it: processes, memory, files and bytes.

Runs in the fence's supervising process, in the same view of the file system, so that what the
program planted leads nowhere either. Looking is cheap: what the target's file system says is
asked often, and the target is walked only when that leaves a doubt, or after a while.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

MAX_PROCESSES = 64
RESERVE_BYTES, RESERVE_SHARE = 1 << 30, 0.02
WALK_EVERY_S, WALK_SHARE = 10.0, 50
BLOCK = 512  # of st_blocks
PAGE = os.sysconf("SC_PAGE_SIZE")

# Exit codes of the launcher when it ended the program.
TOO_MANY_BYTES, TOO_MANY_FILES, TOO_MUCH_MEMORY, TOO_MANY_PROCESSES, NO_SPACE = range(203, 208)


@dataclass(frozen=True)
class Bounds:
    """What the program may take in all; 0 is no bound for ``bytes`` and ``files``."""

    memory: int
    bytes: int = 0
    files: int = 0


def reserve_of(place: str) -> int:
    """Return how many bytes have to stay free on the file system of ``place``."""
    about = os.statvfs(place)
    return min(RESERVE_BYTES, int(about.f_blocks * about.f_frsize * RESERVE_SHARE))


class Watch:
    """Looks at one target and at the processes in ``/proc``."""

    def __init__(self, target: str, bounds: Bounds) -> None:
        self._target, self._bounds = target, bounds
        self._began = time.time() - 1  # the kernel's times lag behind
        self._reserve = reserve_of(target)
        self._first = os.statvfs(target)
        self._walked = time.monotonic()
        self._took = 0.0

    def look(self) -> int:
        """Return the exit code for the bound that was crossed, or 0."""
        return self._processes() or self._disk()

    def _processes(self) -> int:
        count = memory = 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or name == "1":
                continue
            count += 1
            try:
                with open(f"/proc/{name}/statm", "rb") as file:
                    memory += int(file.read().split()[1]) * PAGE
            except (OSError, IndexError):
                continue  # it has ended
            if count > MAX_PROCESSES:
                return TOO_MANY_PROCESSES
        return TOO_MUCH_MEMORY if memory > self._bounds.memory else 0

    def _disk(self) -> int:
        now = os.statvfs(self._target)
        if now.f_bavail * now.f_frsize < self._reserve:
            return NO_SPACE
        bounds = self._bounds
        if not bounds.bytes and not bounds.files:
            return 0
        grown = (self._first.f_bfree - now.f_bfree) * now.f_frsize
        made = self._first.f_ffree - now.f_ffree
        since = time.monotonic() - self._walked
        doubt = (0 < bounds.bytes < grown) or (0 < bounds.files < made)
        # The file system's figures have the work of others in them, either way.
        if since < WALK_SHARE * self._took or (not doubt and since < WALK_EVERY_S):
            return 0
        return self.walk()

    def walk(self) -> int:
        """Count what was made or changed in the target since the beginning."""
        started = time.monotonic()
        bounds, files, size = self._bounds, 0, 0.0
        waiting = [self._target]
        try:
            while waiting:
                try:
                    entries = os.scandir(waiting.pop())
                except OSError:
                    continue
                with entries:
                    for entry in entries:
                        try:
                            found = entry.stat(follow_symlinks=False)
                            if entry.is_dir(follow_symlinks=False):
                                waiting.append(entry.path)
                        except OSError:
                            continue
                        if found.st_ctime < self._began:
                            continue
                        files += 1
                        # What is set aside beyond a file's end is the file system's affair.
                        used = min(found.st_blocks * BLOCK, found.st_size + found.st_blksize)
                        size += used / max(1, found.st_nlink)
                        if 0 < bounds.files < files:
                            return TOO_MANY_FILES
                        if 0 < bounds.bytes < size:
                            return TOO_MANY_BYTES
        finally:
            self._walked = time.monotonic()
            self._took = self._walked - started
        return 0
