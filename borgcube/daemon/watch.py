"""The watch: looks for what no event tells of, in a thread of its own.

Silence, full disks, conditions of this server, reminders and letters that are due, problems
of which nothing more was heard. It only reads; what it found waits in a queue for the daemon's
main thread (``daemon/alarms.py``), which looks again before it changes anything.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from borgcube.core.alarms import Signal
from borgcube.core.config import Config
from borgcube.core.letters import Letter
from borgcube.core.notifiers import ERROR, WARNING
from borgcube.core.registry import Registry
from borgcube.core.silence import Deadlines, Expectations, moment
from borgcube.core.store import Root, Store
from borgcube.daemon import digest, storage
from borgcube.daemon.incidents import MAX_RULES, OPEN, reminder_due

LOG = logging.getLogger(__name__)
MOMENTARY_AFTER = timedelta(days=7)
DOCTOR_EVERY = timedelta(minutes=10)
MAX_OPEN = 50_000
MAX_REPOSITORIES = 1000
# A disk that hovers at the limit must not open and close all day.
ENOUGH_AGAIN = 1.2
Finding = dict[str, str]


@dataclass(frozen=True)
class Reminder:
    """A rule may have to hear again of an incident."""

    incident: str
    rule: str


@dataclass(frozen=True)
class Due:
    """A rule's letter that was due at ``at`` is written."""

    rule: str
    at: str
    letter: Letter
    severity: str


Found = Signal | Reminder | Due


class Watch:
    """Looks every ``notify.look_seconds``; :meth:`found` hands over."""

    def __init__(
        self, config: Config, store: Store, registry: Registry, *,
        doctor: Callable[[], list[Finding]], clock: Callable[[], datetime], server: str,
    ) -> None:  # fmt: skip
        self._config, self._store, self._registry = config, store, registry
        self._doctor, self._clock, self._server = doctor, clock, server
        self._doctor_at: datetime | None = None
        self._storage = storage.Storage()
        self._deadlines = Deadlines()
        self._found: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End; waits until the present look is over."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def found(self, most: int) -> list[Found]:
        """Return up to ``most`` findings that nobody took yet; never waits."""
        taken: list[Found] = []
        while len(taken) < most:
            try:
                taken.append(self._found.get_nowait())
            except queue.Empty:
                break
        return taken

    def _run(self) -> None:
        while not self._stop.wait(self._config.notify.look_seconds):
            # What was found before must be dealt with first, or the queue would grow.
            if self._found.empty():
                self.look()

    def look(self) -> None:
        """Look once; an error in one part is logged and does not keep the others from it."""
        now = self._clock()
        parts: list[Callable[[Root, datetime], Iterator[Found]]] = [
            self._silence, self._disks, self._forgotten, self._reminders, self._letters,
        ]  # fmt: skip
        with self._store.reading() as root:
            self._each(parts, root, now)
        if self._doctor_at is None or now - self._doctor_at >= DOCTOR_EVERY:
            self._doctor_at = now
            findings = self._doctor()
            with self._store.reading() as root:
                self._each([lambda root, _: self._conditions(root, findings)], root, now)

    def _each(self, parts: list[Any], root: Root, now: datetime) -> None:
        for part in parts:
            try:
                for found in part(root, now):
                    self._found.put(found)
            except Exception:
                LOG.exception("the watch could not look at one thing")

    def _open(self, root: Root, kind: str) -> dict[str, Any]:
        found = root.incidents.newest(MAX_OPEN, state=OPEN, kind=kind)
        return {incident.key: incident for incident in found}

    def expected(self, root: Root, now: datetime) -> Expectations:
        """Return what is expected of plans."""
        days = self._config.notify.silence_days
        return Expectations(root, self._registry.schedules, now, days=days)

    def _silence(self, root: Root, now: datetime) -> Iterator[Found]:
        known = self._open(root, "plan-silent")
        expected = self.expected(root, now)
        late = self._deadlines.late(root, expected, now)
        for name, due in late.items():
            key = f"plan-silent:{name}"
            if key not in known:
                plan = root.plans.find("name", name)
                yield _silent(plan, key, due, expected.last_archive_at(name))
        for key, incident in known.items():
            if incident.plan not in late and root.plans.find("name", incident.plan) is not None:
                yield Signal(key, "plan-silent", over=True, reason="Nothing is overdue any more.")

    def _disks(self, root: Root, _now: datetime) -> Iterator[Found]:
        known = self._open(root, "disk-nearly-full")
        percent = self._config.notify.disk_free_percent
        repositories = root.repositories.newest(MAX_REPOSITORIES)
        seen = self._storage.see(one.path for one in repositories)
        for repository in repositories:
            key = f"disk-nearly-full:{repository.name}"
            usage = seen[repository.path]
            if usage.state in (storage.MISSING, storage.HANGS):
                continue  # the doctor says so
            floor = int(repository.free_floor_bytes)
            limit = max(usage.total * percent // 100, floor) if percent else 0
            if usage.free < limit:
                yield _full(repository, key, usage, floor)
            elif key in known and usage.free > limit * ENOUGH_AGAIN:
                yield Signal(key, "disk-nearly-full", over=True,
                             reason=f"{usage.free >> 20} MiB are free again.")  # fmt: skip

    def _conditions(self, root: Root, findings: list[Finding]) -> Iterator[Found]:
        seen = set()
        for one in findings:
            if one.get("about") in ("violations", "space", "failure"):
                continue  # incidents of their own
            # Figures in it change while it is the same condition.
            key = "server-condition:" + re.sub(r"\d+", "#", one["message"])[:200]
            seen.add(key)
            yield Signal(
                key, "server-condition", severity=ERROR if one["level"] == "error" else WARNING,
                title=one["message"].partition(". ")[0].rstrip("."), message=one["message"],
                next_step=one["next_step"], standing=True,
            )  # fmt: skip
        for key in self._open(root, "server-condition").keys() - seen:
            yield Signal(key, "server-condition", over=True,
                         reason="`borgcube doctor` does not find it any more.")  # fmt: skip

    def _forgotten(self, root: Root, now: datetime) -> Iterator[Found]:
        for incident in root.incidents.newest(MAX_OPEN, state=OPEN):
            last = moment(incident.last_at)
            if incident.momentary and last is not None and now - last >= MOMENTARY_AFTER:
                yield Signal(incident.key, incident.kind, over=True,
                             reason=f"It did not happen again for {MOMENTARY_AFTER.days} days."
                             )  # fmt: skip

    def _reminders(self, root: Root, now: datetime) -> Iterator[Found]:
        rules = {rule.name: rule for rule in root.rules.newest(MAX_RULES) if rule.remind_hours}
        if not rules:
            return
        for incident in root.incidents.newest(MAX_OPEN, state=OPEN):
            for name in incident.told:
                if name in rules and reminder_due(incident, rules[name], now):
                    yield Reminder(incident.id, name)

    def _letters(self, root: Root, now: datetime) -> Iterator[Found]:
        for rule in root.rules.newest(MAX_RULES):
            due = moment(rule.next_digest_at) if rule.digest and not rule.disabled else None
            if due is not None and due <= now:
                written = digest.write(
                    root, rule, self.expected(root, now), now, server=self._server,
                    url=self._config.console.url.rstrip("/"),
                )  # fmt: skip
                yield Due(rule.name, rule.next_digest_at, *written)


def _silent(plan: Any, key: str, due: datetime, last: datetime | None) -> Signal:
    said = f"Its newest archive is of {last:%Y-%m-%d %H:%M} UTC." if last else "It has none at all."
    return Signal(
        key, "plan-silent", client=plan.client, plan=plan.name, repository=plan.repository,
        title=f"Plan {plan.name} is silent", standing=True,
        message=f"It should have had an archive by {due:%Y-%m-%d %H:%M} UTC. {said}",
        next_step=f"See why: borgcube job list --client {plan.client}. Then: "
        f"borgcube backup {plan.name}",
    )  # fmt: skip


def _full(repository: Any, key: str, usage: Any, floor: int) -> Signal:
    below = usage.free < floor
    said = f"{usage.free >> 20} MiB of {usage.total >> 20} MiB are free at {repository.path}."
    if below:
        said += f" That is below its floor of {floor >> 20} MiB: it takes no backups."
    return Signal(
        key, "disk-nearly-full", severity=ERROR if below else WARNING, standing=True,
        repository=repository.name, title=f"The disk of repository {repository.name} is "
        f"{'full' if below else 'nearly full'}", message=said,
        next_step="Make room, delete archives, or give it a larger disk.",
    )  # fmt: skip
