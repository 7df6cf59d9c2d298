"""What the daemon does beside jobs, a little at a time: plans whose newest archive became
too old are judged again, the free space of repositories is looked at, what is over and old
is dropped, and the store's file is packed when that is worth it.

The main loop calls :meth:`Housekeeping.step` often; each call does one short piece of work
at most and never waits. Nothing here is urgent: what fails is logged and tried again later.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borgcube.core import events, history, standing
from borgcube.core import home as places
from borgcube.core.config import Config
from borgcube.core.errors import BorgCubeError
from borgcube.core.store import Store
from borgcube.daemon.space import SpaceWatch

LOG = logging.getLogger(__name__)
AGE_EVERY_S = 20.0
HISTORY_EVERY_S = 3600.0
PACK_LOOK_EVERY_S = 600.0
RETRY_S = 60.0
SOON_S = 0.05
FIRST_HISTORY_S = 60.0  # a daemon that was just started has better things to do
# Packing costs a while of one core, so it waits for a moment without jobs, but not for ever.
PACK_EVERY = timedelta(hours=20)
PACK_ANYWAY = timedelta(days=3)
PACK_GROWTH, PACK_GROWTH_BYTES = 1.25, 64 << 20
PACKED = "packed"  # the setting that holds when, and how large the file was afterwards


class Packing(threading.Thread):
    """Packs the store; ``error`` or ``size`` is set when it is over."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="packing", daemon=True)
        self._store = store
        self.error = ""
        self.size: int | None = None

    def run(self) -> None:
        """Pack."""
        try:
            self._store.pack()
            self.size = self._store.size
        except BorgCubeError as error:
            self.error = f"{error.message} {error.next_step}".strip()
        except Exception as error:
            LOG.exception("the store could not be packed")
            self.error = str(error) or type(error).__name__


class Housekeeping:
    """The chores of one daemon. ``busy`` says whether jobs run."""

    def __init__(
        self, store: Store, *, home: Path, config: Config, busy: Callable[[], bool]
    ) -> None:
        self._store, self._home, self._config, self._busy = store, home, config, busy
        self._packing: Packing | None = None
        self._jobs_from = 0
        self.problem = ""
        later = time.monotonic() + FIRST_HISTORY_S
        self._due: dict[Callable[[], float], float] = {
            self._age: 0.0, SpaceWatch(store).step: 0.0, self._jobs: later, self._records: later,
            self._pack: later,
        }  # fmt: skip

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
        return SOON_S

    def _jobs(self) -> float:
        """Drop some old jobs: first their logs, so that none is left without its job."""
        kept = self._config.jobs
        with self._store.reading() as root:
            old = history.old_jobs(
                root, before=_days_ago(kept.keep_days), most=kept.keep_most, start=self._jobs_from
            )
        for job_id in old.jobs:
            shutil.rmtree(places.job_dir(self._home, job_id), ignore_errors=True)
        if old.jobs:
            with self._store.transact() as root:
                history.drop_jobs(root, old.jobs)
        self._jobs_from = old.following or 0
        return HISTORY_EVERY_S if old.following is None else SOON_S

    def _records(self) -> float:
        """Drop some old events and entries of the audit trail."""
        journal, audit = self._config.journal, self._config.audit
        oldest = _days_ago(journal.keep_days), _days_ago(audit.keep_days)
        with self._store.reading() as root:
            first = root.journal.first
            waits = first <= root.journal.last and (
                root.journal.last - first >= journal.keep_most
                or root.journal.entries[first]["at"] < oldest[0]
            )
            trail = root.audit
            waits = waits or trail.size > audit.keep_most
            waits = waits or bool(
                trail.size and trail.rows[trail.rows.minKey()].created_at < oldest[1]
            )
        if not waits:
            return HISTORY_EVERY_S
        with self._store.transact() as root:
            root.journal.drop(500, before=oldest[0], most=journal.keep_most)
            history.drop_entries(root.audit, before=oldest[1], most=audit.keep_most)
        return SOON_S

    def _pack(self) -> float:
        """Begin or end a pack of the store's file."""
        if self._packing is not None:
            if self._packing.is_alive():
                return 1.0
            packing, self._packing = self._packing, None
            self.problem = packing.error
            if packing.error:
                LOG.warning("the store was not packed: %s", packing.error)
            else:
                self.note_packed()
            return PACK_LOOK_EVERY_S
        size = self._store.size
        if size is None or not self._config.store.pack:
            return PACK_LOOK_EVERY_S
        with self._store.reading() as root:
            last: dict[str, Any] = dict(root.settings.get(PACKED) or {"at": "", "size": 0})
        if pack_is_due(last, size, busy=self._busy(), now=datetime.now(UTC)):
            LOG.info("packing the store, %d MiB", size >> 20)
            self._packing = Packing(self._store)
            self._packing.start()
            return 1.0
        return PACK_LOOK_EVERY_S

    def note_packed(self) -> dict[str, Any]:
        """Keep when the store was packed and how large it is now; returns that."""
        packed: dict[str, Any] = {"at": events.now(), "size": self._store.size or 0}
        with self._store.transact() as root:
            root.settings[PACKED] = packed
        LOG.info("the store is packed, %d MiB", packed["size"] >> 20)
        return packed


def pack_is_due(last: dict[str, Any], size: int, *, busy: bool, now: datetime) -> bool:
    """Return whether packing a file of ``size`` bytes is worth it and may be done now."""
    grown = max(last["size"] * PACK_GROWTH, last["size"] + PACK_GROWTH_BYTES)
    if size < grown:
        return False
    waited = now - standing.utc(last["at"])
    return waited >= PACK_ANYWAY or (waited >= PACK_EVERY and not busy)


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
