"""A fleet in virtual time: the real scheduler and queue policy over a store in memory, with
runs that only take time.

Used by tests and by ``borgcube.testing.simulate``. Only transports, workers and vaults are
left out: jobs go through ``core.lifecycle``, are chosen by ``daemon.queue`` and queued by
``daemon.scheduler``, as in a daemon. Not for production.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core import envelope, events, lifecycle
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.model import Archive, Client, Job, Plan, Repository, Schedule
from borgcube.core.model.scheduling import PLAN
from borgcube.core.registry import Registry
from borgcube.core.store import Root, Store
from borgcube.core.transports import ClientAddress
from borgcube.daemon import queue, timetabling
from borgcube.daemon.scheduler import Clock, Scheduler
from borgcube.plugins import schedule_calendar

TICK_S = 1
UNREACHABLE = FailureCause("host-unreachable", Problem.NETWORK, "No answer.", "Wait.")


class VirtualClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self.wall, self.ran = start, 0.0

    def now(self) -> datetime:
        """Return the virtual time of day."""
        return self.wall

    def steady(self) -> float:
        """Return virtual seconds that were lived through."""
        return self.ran

    def pass_to(self, moment: datetime) -> None:
        """Let time pass."""
        self.ran += (moment - self.wall).total_seconds()
        self.wall = moment

    def set_to(self, moment: datetime) -> None:
        """Set the clock, as a person or a time server does; no time passes."""
        self.wall = moment


@contextmanager
def told_by(clock: Clock) -> Iterator[None]:
    """Have records and events stamped with a virtual time."""
    real = events.now

    def now() -> str:
        return clock.now().isoformat(timespec="milliseconds")

    events.now = envelope.now = now
    try:
        yield
    finally:
        events.now = envelope.now = real


@dataclass(frozen=True)
class Run:
    """What becomes of one run: how long it takes and how it ends."""

    seconds: float
    state: str = lifecycle.DONE
    cause: FailureCause | None = None
    archive: bool = True


@dataclass
class Fleet:
    """A store, a clock and the two policies. ``runs`` decides what a started job does, and
    ``reachable`` whether a client answers."""

    clock: VirtualClock
    max_running: int = 4
    runs: Callable[[Job, datetime], Run] = lambda job, now: Run(60.0)
    reachable: Callable[[str, datetime], bool] = lambda client, now: True
    store: Store = field(default_factory=lambda: Store.open("memory://"))
    registry: Registry = field(default_factory=Registry)
    heard: list[dict[str, Any]] = field(default_factory=list)
    started: list[tuple[datetime, str, str, str]] = field(default_factory=list)
    keep_events: bool = True
    off: bool = False
    tick_s: int = TICK_S  # nothing happens more often than this

    def __post_init__(self) -> None:
        self.registry.add(schedule_calendar, name="schedule_calendar")
        self.ends: list[tuple[datetime, int, str, Run]] = []
        self.store.on_committed = self._hear
        self._looked = datetime.min.replace(tzinfo=UTC)
        self._moved = True
        self.start()

    def start(self) -> None:
        """Start the daemon's part: a scheduler that knows nothing but the store."""
        self.off = False
        self.open_jobs = queue.OpenJobs()
        self.scheduler = Scheduler(
            self.store, self.registry, lanes=self.max_running, reach=self,
            open_jobs=self.open_jobs, clock=self.clock,
        )  # fmt: skip
        with self.store.transact() as root:
            for state in lifecycle.ACTIVE:
                for job in root.jobs.oldest("state", state):
                    lifecycle.lose(root, job)
                    lifecycle.requeue(root, job)
        self.scheduler.start()

    def stop(self) -> None:
        """Stop it; what ran is lost with it."""
        self.off = True
        self.ends.clear()

    def ask(self, address: ClientAddress) -> bool:
        """Answer for the reach of a client."""
        return self.reachable(address.name, self.clock.now())

    def _hear(self, told: events.Envelope) -> None:
        if self.keep_events:
            self.heard.append(told.as_data())
        self._moved = True
        self.scheduler.notice(told)

    def add(
        self, schedule: Schedule, plans: Sequence[str], *, repository: str = "main",
        network: str = "", retries: int = 0, retry_delay_s: int = 60,
    ) -> None:  # fmt: skip
        """Add a schedule and plans with it, each of a client of its own name."""
        now = self.clock.now()
        with self.store.transact() as root:
            if root.schedules.find("name", schedule.name) is None:
                root.schedules.add(schedule)
            if root.repositories.find("name", repository) is None:
                root.repositories.add(Repository(name=repository))
            for name in plans:
                root.clients.add(Client(name=name, transport="virtual", network=network))
                root.plans.add(Plan(
                    name=name, client=name, repository=repository, schedule=schedule.name,
                    retries=retries, retry_delay_s=retry_delay_s,
                ))  # fmt: skip
                timetabling.enrol(
                    root, self.registry.schedules, subject=PLAN, name=name,
                    schedule=schedule.name, now=now,
                )  # fmt: skip
        self.scheduler.wake()

    def live(self, until: datetime) -> None:
        """Let time pass until then, doing everything at its time."""
        with told_by(self.clock):
            while self.clock.now() < until:
                self.act()
                self.clock.pass_to(min(until, self._next_moment(until)))
            self.act()

    def act(self) -> None:
        """Do what is to be done now."""
        if self.off:
            return
        while True:
            self._moved = False
            self._end_runs()
            self.scheduler.step()
            self._start_runs()
            if not self._moved and not self.scheduler.busy:
                return

    def _next_moment(self, until: datetime) -> datetime:
        now = self.clock.now()
        if self.off:
            return until
        moments = [self.ends[0][0]] if self.ends else []
        with self.store.reading() as root:
            first = root.timetable.first_at()
            queued, _ = self.open_jobs.look(root)
        if first:
            moments.append(datetime.fromtimestamp(first, UTC))
        if queued:  # something may wait for a window, a pause or its retry
            moments.append(now + timedelta(seconds=max(60, self.tick_s)))
        return max(now + timedelta(seconds=self.tick_s), min(moments, default=until))

    def _start_runs(self) -> None:
        now = self.clock.now()
        free = self.max_running - len(self.ends)
        if free <= 0:
            return
        with self.store.reading() as root:
            if not root.jobs.count(state=lifecycle.QUEUED):
                return
        with self.store.transact() as root:
            queued, active = self.open_jobs.look(root)
            slots = queue.slots_of(root, active, free=free, job_types={})
            holds = queue.Holds(root, self.registry.schedules, now)
            for chosen in queue.select(queued, slots, holds=holds, now=now):
                slots.take(chosen)
                slots.free -= 1
                job = root.jobs.rows[chosen.number]
                lifecycle.take(root, job)
                lifecycle.start(root, job)
                run = self.runs(job, now)
                self.started.append((now, job.plan or job.task, job.due, job.id))
                end = now + timedelta(seconds=run.seconds)
                heapq.heappush(self.ends, (end, int(job.id), job.id, run))

    def _end_runs(self) -> None:
        now = self.clock.now()
        if not self.ends or self.ends[0][0] > now:
            return
        with self.store.transact() as root:
            while self.ends and self.ends[0][0] <= now:
                _, _, job_id, run = heapq.heappop(self.ends)
                self._finish(root, root.jobs.find("id", job_id), run)

    def _finish(self, root: Root, job: Job, run: Run) -> None:
        if run.state in (lifecycle.DONE, lifecycle.WARNING) and job.type == "backup":
            if run.archive:
                lifecycle.add_archive(root, Archive(
                    id=f"a{job.id}", name=f"{job.plan}-{job.id}", client=job.client,
                    plan=job.plan, repository=job.repository, job=job.id,
                    start=job.started_at, begun_at=job.started_at, end=events.now(),
                    created_at=events.now(),
                ))  # fmt: skip
        lifecycle.finish(root, job, run.state, cause=run.cause)
        if run.state == lifecycle.FAILED and run.cause is not None:
            if run.cause.problem == Problem.NETWORK:
                lifecycle.requeue(root, job)

    def types(self, *wanted: str) -> list[dict[str, Any]]:
        """Return the data of the events of these types, in order."""
        return [one["data"] | {"type": one["type"]} for one in self.heard if one["type"] in wanted]

    def starts_of(self, plan: str) -> list[datetime]:
        """Return when runs of a plan were started."""
        return [at for at, name, _, _ in self.started if name == plan]
