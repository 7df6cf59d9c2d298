"""Looks how much room the disks of repositories have, and how much each repository takes.

:class:`~borgcube.daemon.housekeeping.Housekeeping` calls :meth:`SpaceWatch.step` in the main
thread, which only reads and writes the store. Directories are walked in a thread of their own:
one of many files, or on storage that hangs, holds nothing up. Nothing in them is opened.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from borgcube.core import standing
from borgcube.core.store import Store

LOG = logging.getLogger(__name__)
EVERY_S = 3600.0  # for every repository
CHANGED_EVERY_S = 60.0  # for those that got or lost archives
AT_MOST = 0.01  # of the time is spent on walking a directory, however often it changes
LOOK_S = 1.0


@dataclass(frozen=True)
class Space:
    """What was seen, in bytes: free and all of the disk, and what the directory takes."""

    free: int
    disk: int
    stored: int
    took_s: float


def size_of(path: str) -> int:
    """Return the bytes of all regular files below a directory; links are not followed.

    What goes away meanwhile is not counted. Raises OSError when ``path`` cannot be read.
    """
    total = 0
    waiting = [path]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            total += entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue
        except FileNotFoundError:
            if here == path:
                raise
    return total


class Look(threading.Thread):
    """Looks at directories, one after the other; ``found`` is whole when it is over."""

    def __init__(self, paths: dict[str, str]) -> None:
        super().__init__(name="space", daemon=True)
        self.paths = paths
        self.found: dict[str, Space] = {}
        self.start()

    def run(self) -> None:
        """Look."""
        for name, path in self.paths.items():
            begun = time.monotonic()
            try:
                usage = shutil.disk_usage(path)
                stored = size_of(path)
            except OSError as error:
                # Doctor and the storage alarms say that it is not there.
                LOG.info("repository %s was not measured: %s", name, error)
                continue
            self.found[name] = Space(usage.free, usage.total, stored, time.monotonic() - begun)


class SpaceWatch:
    """Looks at all repositories once an hour, and soon at those whose archives changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._look: Look | None = None
        self._due: dict[str, float] = {}  # when each is looked at whatever happens
        self._not_before: dict[str, float] = {}

    def step(self) -> float:
        """Begin or end a look; returns in how many seconds to come again."""
        if self._look is not None:
            if self._look.is_alive():
                return LOOK_S
            look, self._look = self._look, None
            self._note(look.found)
            return CHANGED_EVERY_S
        paths = self._wanted(time.monotonic())
        if paths:
            self._look = Look(paths)
            return LOOK_S / 10
        return CHANGED_EVERY_S

    def _wanted(self, now: float) -> dict[str, str]:
        wanted = {}
        with self._store.reading() as root:
            for one in root.repositories.rows.values():
                name = str(one.name)
                status = root.fleet.repository(name)
                last = status.days[status.days.maxKey()] if len(status.days) else {}
                changed = status.held != last.get("held")
                if now >= self._due.get(name, 0.0) or (
                    changed and now >= self._not_before.get(name, 0.0)
                ):
                    wanted[name] = str(one.path)
        for name in wanted:
            # Also for one that cannot be looked at: it is tried again in an hour.
            self._due[name], self._not_before[name] = now + EVERY_S, now + EVERY_S
        return wanted

    def _note(self, found: dict[str, Space]) -> None:
        now = time.monotonic()
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        with self._store.transact() as root:
            for name, space in found.items():
                if root.repositories.find("name", name) is None:
                    continue  # it was forgotten meanwhile
                standing.note_space(
                    root, name, free=space.free, disk=space.disk, day=day, stored=space.stored
                )
        for name, space in found.items():
            self._not_before[name] = now + max(CHANGED_EVERY_S, space.took_s / AT_MOST)
