"""The scheduler: queues what is due, and says what was missed and caught up.

Its state is the timetable in the store, so that nothing is lost or repeated when the daemon
ends at any moment: a job is queued in the transaction that moves its entry on. The dispatcher
decides when a queued job starts. Called by the daemon in its main thread; reads the clock it
is given, so that a simulation runs this very code.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from borgcube.core import events, lifecycle
from borgcube.core import events_scheduling as told
from borgcube.core.errors import BorgCubeError
from borgcube.core.model import Entry, Job, Pause
from borgcube.core.model.scheduling import PLAN
from borgcube.core.planning import Pauses, instant, rule_named, subject_of
from borgcube.core.registry import Registry
from borgcube.core.schedules import KEPT_DURATIONS, ON_TIME_S, SKIP, WHEN_REACHABLE, Rule
from borgcube.core.store import Root, Store
from borgcube.core.transports import ClientAddress
from borgcube.daemon import timetabling
from borgcube.daemon.orders import address_of
from borgcube.daemon.queue import BY_SCHEDULE, OpenJobs, Waiting
from borgcube.daemon.timetabling import seconds, stamp

LOG = logging.getLogger(__name__)
BATCH = 50  # in one transaction, between which the daemon answers others
CHECKED_AT_ONCE = 500
LOOK_S = 60  # at least as often, for what others changed in the store
CLOCK_JUMP_S = 60.0
BUSY_AGAIN_S, ASKED_AGAIN_S, BROKEN_AGAIN_S = 60, 2, 3600
AWAY_FIRST_S, AWAY_LONGEST_S = 300, 3600
SPREAD_KEPT_S = 3600
MAX_COUNTED = 100  # missed runs; more are not told apart
# Before this, a clock is wrong for sure: it lost its battery and waits for the network.
SENSIBLE = datetime(2026, 1, 1, tzinfo=UTC)
OFF, PAUSED, BLACKOUT, BUSY, AWAY, BROKEN = "off", "pause", "blackout", "busy", "away", "broken"


class Clock:
    """The time, as the scheduler reads it."""

    def now(self) -> datetime:
        """Return the time of day in UTC."""
        return datetime.now(UTC)

    def steady(self) -> float:
        """Return seconds of a clock that nobody sets."""
        return time.monotonic()


class Reaches(Protocol):
    """Who knows whether a client answers (:class:`borgcube.daemon.reach.Reach`)."""

    def ask(self, address: ClientAddress) -> bool | None:
        """Return whether a client answers, or None while that is being found out."""


class Scheduler:
    """The timetable's only consumer."""

    def __init__(
        self, store: Store, registry: Registry, *, lanes: int, reach: Reaches,
        open_jobs: OpenJobs, clock: Clock | None = None,
        queued: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._store, self._registry, self._lanes, self._reach = store, registry, lanes, reach
        self._open_jobs, self._clock, self._queued = open_jobs, clock or Clock(), queued
        self._look_at = 0.0
        self._unchecked: list[str] = []
        self._ended: list[str] = []
        self._spread: dict[str, tuple[float, dict[str, int]]] = {}
        self._said_broken: set[str] = set()
        self._ahead: float | None = None
        self.problems: dict[str, str] = {}

    def start(self) -> None:
        """Check the whole timetable against plans, schedules and the clock, in small steps."""
        with self._store.reading() as root:
            self._unchecked = timetabling.keys_to_check(root)
        self.wake()

    def wake(self) -> None:
        """Look at the timetable at the next step."""
        self._look_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is more to do at once."""
        return bool(self._unchecked) and self._clock.now() >= SENSIBLE

    def notice(self, envelope: events.Envelope) -> None:
        """Hear of an event after its commit."""
        if envelope.type in ("job.finished", "job.lost"):
            self._ended.append(str(envelope.data["job"]))
            self.wake()

    def findings(self) -> list[dict[str, str]]:
        """Return what ``borgcube doctor`` says about the clock and about broken schedules."""
        found = [
            {"level": "error", "message": f"The schedule of {key.replace(':', ' ')}: {text}",
             "next_step": "Give it a schedule that can be used."}
            for key, text in sorted(self.problems.items())
        ]  # fmt: skip
        if self._clock.now() < SENSIBLE:
            said, step = "The clock of this server is wrong.", "Set it; nothing starts before."
            found.append({"level": "error", "message": said, "next_step": step})
        return found

    def step(self) -> None:
        """Queue what is due; never waits."""
        now, steady = self._clock.now(), self._clock.steady()
        if now < SENSIBLE:
            return
        ahead = now.timestamp() - steady
        if self._ahead is not None and abs(ahead - self._ahead) > CLOCK_JUMP_S:
            LOG.warning("the clock was set by %d seconds; the timetable is checked",
                        ahead - self._ahead)  # fmt: skip
            self.start()
        self._ahead = ahead
        if now.timestamp() < self._look_at and not self._unchecked:
            return
        self._take_ends(now)
        self._check(now)
        more = self._take_due(now)
        with self._store.reading() as root:
            first = root.timetable.first_at() or int(now.timestamp()) + LOOK_S
        soon = now.timestamp() + LOOK_S
        self._look_at = 0.0 if more else min(float(first), soon)

    def _check(self, now: datetime) -> None:
        if not self._unchecked:
            return
        chosen = self._unchecked[:CHECKED_AT_ONCE]
        with self._store.transact() as root:
            for key in chosen:
                timetabling.recheck(root, self._registry.schedules, key, now)
        del self._unchecked[: len(chosen)]

    def _take_ends(self, now: datetime) -> None:
        """Learn how long runs took, and look again at what waited for them."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        with self._store.transact() as root:
            for job_id in ended:
                job = root.jobs.find("id", job_id)
                if job is None:
                    continue
                entry = root.timetable.get("task", job.task) if job.task else (
                    root.timetable.get(PLAN, job.plan) if job.type == "backup" else None
                )  # fmt: skip
                if entry is None:
                    continue
                if job.state in (lifecycle.DONE, lifecycle.WARNING) and job.started_at:
                    took = _between(job.started_at, job.finished_at)
                    entry.durations = (*entry.durations, took)[-KEPT_DURATIONS:]
                if entry.held == BUSY:
                    root.timetable.move(entry, seconds(now))

    def _take_due(self, now: datetime) -> bool:
        with self._store.reading() as root:
            if not root.timetable.due(int(now.timestamp()), 1) and not self._over(root, now):
                return False
        queued = False
        with self._store.transact() as root:
            for pause in self._over(root, now):
                root.pauses.remove(pause)
                root.record(told.PauseEnded(scope=pause.scope, target=pause.target))
            due = root.timetable.due(int(now.timestamp()), BATCH)
            pauses = Pauses.at(root, now)
            waiting, active = self._open_jobs.look(root)
            opened = {_key_of(job): job for job in (*waiting, *active)}
            for entry in due:
                try:
                    done = self._consider(root, entry, now, pauses, opened.get(entry.key))
                    queued = done or queued
                    self.problems.pop(entry.key, None)
                except BorgCubeError as error:
                    self.problems[entry.key] = str(error)
                    self._hold(root, entry, BROKEN, now, now + timedelta(seconds=BROKEN_AGAIN_S))
        if queued:
            self._queued()
        return len(due) == BATCH

    @staticmethod
    def _over(root: Root, now: datetime) -> list[Pause]:
        return [p for p in root.pauses.newest(10_000) if (instant(p.until) or now) < now]

    def _hold(
        self, root: Root, entry: Entry, why: str, now: datetime, until: datetime | None
    ) -> None:
        """Have a run that is due wait, because of ``why``, until it is looked at again."""
        if entry.held != why:
            entry.held, entry.held_since, entry.tries = why, stamp(now), 0
        root.timetable.move(entry, seconds(until) if until else 0)

    def _consider(
        self, root: Root, entry: Entry, now: datetime, pauses: Pauses, opened: Waiting | None
    ) -> bool:
        """Do what is right for one entry whose time has come; True when a job was queued.

        ``opened`` is a job of it that waits or runs.
        """
        subject = subject_of(root, entry)
        rule = rule_named(root, self._registry.schedules, entry.schedule)
        if not subject or rule is None:
            root.timetable.remove(entry.subject, entry.name)
            return False
        if not entry.due:
            timetabling.set_next(root, self._registry.schedules, entry, now)
            return False
        pause = pauses.of(**subject)
        if pause is not None:
            entry.excused = pause.until
            self._hold(root, entry, PAUSED, now, instant(pause.until))
            return False
        if not rule.windows.is_open(now):
            self._hold(root, entry, BLACKOUT, now, rule.windows.next_open(now))
            return False
        late = (now - (instant(entry.start) or now)).total_seconds()
        reason = BUSY if opened else entry.held or OFF
        if rule.catch_up == SKIP and late > ON_TIME_S:
            self._miss(root, entry, rule, now, reason, subject)
            return False
        if opened is not None:
            return self._behind(root, entry, rule, now, opened)
        if rule.catch_up == WHEN_REACHABLE and not self._answers(root, entry, now, subject):
            return False
        self._queue(root, entry, rule, now, subject, late=late, reason=reason)
        return True

    def _behind(self, root: Root, entry: Entry, rule: Rule, now: datetime, opened: Waiting) -> bool:
        """Wait for the run before; one that only waits to be tried again does it now instead."""
        job = root.jobs.rows[opened.number]
        if job.state == lifecycle.QUEUED and job.attempt > 1 and job.not_before:
            _, entry.last_due = self._runs(entry, rule, now)
            job.not_before, job.due, job.attempt = "", entry.last_due, 1
            self._open_jobs.forget(opened.number)
            entry.last_job = job.id
            self._advance(root, entry, rule, now)
            return True
        self._hold(root, entry, BUSY, now, now + timedelta(seconds=BUSY_AGAIN_S))
        return False

    def _answers(self, root: Root, entry: Entry, now: datetime, subject: dict[str, str]) -> bool:
        client = root.clients.find("name", subject["client"]) if subject["client"] else None
        answer = self._reach.ask(address_of(client)) if client is not None else True
        if answer is None:
            root.timetable.move(entry, seconds(now + timedelta(seconds=ASKED_AGAIN_S)))
            return False
        if not answer:
            if entry.held != AWAY:
                root.record(told.ScheduleWaiting(
                    subject=entry.subject, name=entry.name, schedule=entry.schedule,
                    due=entry.due, client=subject["client"],
                ))  # fmt: skip
            wait = min(AWAY_FIRST_S * 2 ** min(entry.tries, 10), AWAY_LONGEST_S)
            self._hold(root, entry, AWAY, now, now + timedelta(seconds=wait))
            entry.tries += 1
        return answer

    def _miss(
        self, root: Root, entry: Entry, rule: Rule, now: datetime, reason: str,
        subject: dict[str, str],
    ) -> None:  # fmt: skip
        runs, last = self._runs(entry, rule, now)
        entry.missed += runs
        entry.last_due = last
        root.record(told.ScheduleMissed(
            subject=entry.subject, name=entry.name, schedule=entry.schedule, due=entry.due,
            runs=runs, reason=reason, client=subject["client"],
        ))  # fmt: skip
        self._advance(root, entry, rule, now)

    def _queue(
        self, root: Root, entry: Entry, rule: Rule, now: datetime, subject: dict[str, str], *,
        late: float, reason: str,
    ) -> None:  # fmt: skip
        runs, last = self._runs(entry, rule, now)
        job = lifecycle.queue(root, self._job(root, entry, subject, due=last))
        if late > ON_TIME_S:
            root.record(told.ScheduleCaughtUp(
                subject=entry.subject, name=entry.name, schedule=entry.schedule, due=entry.due,
                runs=runs, reason=reason, late_s=int(late), job=job.id,
                client=subject["client"],
            ))  # fmt: skip
            if reason in (OFF, PAUSED):
                entry.excused = stamp(now)
        entry.last_due, entry.last_job = last, job.id
        self._advance(root, entry, rule, now)

    @staticmethod
    def _job(root: Root, entry: Entry, subject: dict[str, str], *, due: str) -> Job:
        common = {"origin": BY_SCHEDULE, "schedule": entry.schedule, "due": due}
        if entry.subject == PLAN:
            return Job(type="backup", **subject, **common)
        task = root.tasks.find("name", entry.name)
        return Job(type=task.type, parameters=dict(task.parameters), **subject, **common)

    @staticmethod
    def _runs(entry: Entry, rule: Rule, now: datetime) -> tuple[int, str]:
        """Return how many runs were due by now, and when the last of them was."""
        first = instant(entry.due) or now
        later = list(rule.due_between(first, now, most=MAX_COUNTED))
        last = later[-1] if later else first
        if len(later) == MAX_COUNTED:
            last = max(last, rule.previous(now) or last)
        return 1 + len(later), stamp(last)

    def _advance(self, root: Root, entry: Entry, rule: Rule, now: datetime) -> None:
        spread: dict[str, int] = {}
        if rule.stagger:
            at, spread = self._spread.get(rule.name, (0.0, spread))
            if self._clock.steady() - at > SPREAD_KEPT_S or entry.key not in spread:
                spread = timetabling.offsets(root, rule.name, lanes=self._lanes)
                self._spread[rule.name] = (self._clock.steady(), spread)
        timetabling.set_next(root, self._registry.schedules, entry, now, spread=spread)


def _key_of(job: Waiting) -> str:
    if job.task:
        return f"task:{job.task}"
    return f"{PLAN}:{job.plan}" if job.is_backup else ""


def _between(begin: str, end: str) -> float:
    span = datetime.fromisoformat(end) - datetime.fromisoformat(begin)
    return max(0.0, span.total_seconds())
