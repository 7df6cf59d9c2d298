"""What the daemon does beside jobs, a little at a time: plans whose newest archive became
too old are judged again, and the free space of repositories is looked at.

The main loop calls :meth:`Housekeeping.step` often; each call does one short piece of work
at most and never waits. Nothing here is urgent: what fails is logged and tried again later.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime

from borgcube.core import standing
from borgcube.core.store import Store

LOG = logging.getLogger(__name__)
AGE_EVERY_S = 20.0
SPACE_EVERY_S = 3600.0
RETRY_S = 60.0
MAX_REPOSITORIES = 10_000


class Housekeeping:
    """The chores of one daemon."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: dict[Callable[[], float], float] = {self._age: 0.0, self._space: 0.0}

    def step(self) -> None:
        """Do one piece of what is due."""
        now = time.monotonic()
        for chore, at in self._due.items():
            if now < at:
                continue
            self._due[chore] = now + RETRY_S
            self._due[chore] = time.monotonic() + chore()
            return

    def _age(self) -> float:
        """Judge plans again whose time has come; returns when to look again, in seconds."""
        with self._store.reading() as root:
            due = root.fleet.due
            waits = bool(due) and standing.utc(due.minKey()[0]) <= datetime.now(UTC)
        if not waits:
            return AGE_EVERY_S
        with self._store.transact() as root:
            standing.age(root)
        return 0.0

    def _space(self) -> float:
        """Keep how much room the disks of all repositories have."""
        with self._store.reading() as root:
            places = [
                (str(r.name), str(r.path)) for r in root.repositories.newest(MAX_REPOSITORIES)
            ]
        found = {}
        for name, path in places:
            if os.path.isdir(path):
                found[name] = shutil.disk_usage(path)
        if found:
            day = f"{datetime.now(UTC):%Y-%m-%d}"
            with self._store.transact() as root:
                for name, usage in found.items():
                    standing.note_space(root, name, free=usage.free, disk=usage.total, day=day)
        return SPACE_EVERY_S
