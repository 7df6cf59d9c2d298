"""Which of the waiting jobs may start now: the queue's policy, apart from how jobs are run.

The dispatcher asks it with what it sees in the store; the simulation of a fleet asks the same
code with a virtual clock. Nothing here changes a record. The rules, in this order:

1. Jobs that a person or a trigger asked for go before those of schedules; then the oldest.
2. Slots: in all, for each repository, for each network, and sessions of each client.
3. One backup of a plan at a time, one run of a task at a time.
4. A job that needs its repository alone waits for the others there, and those behind it wait
   for it.
5. Jobs of schedules wait for the end of pauses, and for their windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.errors import BorgCubeError
from borgcube.core.model import Job
from borgcube.core.planning import Pauses, rule_named
from borgcube.core.store import Root

BY_SCHEDULE = "schedule"
SLOTS = "slots"  # the setting: {"repository:main": 2, "network:branch": 3}


@dataclass(frozen=True)
class Waiting:
    """What the policy needs to know of a job; who changes it while it waits calls
    :meth:`OpenJobs.forget`."""

    number: int
    id: str
    type: str
    client: str
    repository: str
    plan: str
    task: str
    origin: str
    schedule: str
    not_before: str
    created_at: str

    @classmethod
    def of(cls, number: int, job: Job) -> Waiting:
        """Take it from a stored job."""
        return cls(
            number, job.id, job.type, job.client, job.repository, job.plan, job.task,
            job.origin, job.schedule, job.not_before, job.created_at,
        )  # fmt: skip

    @property
    def is_backup(self) -> bool:
        """Whether it is a backup of a plan, of which there is one at a time."""
        return self.type == "backup" and bool(self.plan)


class OpenJobs:
    """The queued and active jobs of a store, each read once: a look at a queue of thousands
    costs a walk over numbers."""

    def __init__(self) -> None:
        self._known: dict[int, Waiting] = {}

    def look(self, root: Root) -> tuple[list[Waiting], list[Waiting]]:
        """Return the queued and the active jobs, in the order of their numbers."""
        seen: dict[int, Waiting] = {}

        def read(state: str) -> list[Waiting]:
            found = []
            for number in root.jobs.numbers("state", state):
                job = self._known.get(number) or Waiting.of(number, root.jobs.rows[number])
                seen[number] = job
                found.append(job)
            return found

        queued = read(lifecycle.QUEUED)
        active = [job for state in lifecycle.ACTIVE for job in read(state)]
        self._known = seen
        return queued, active

    def forget(self, number: int) -> None:
        """Read a job anew that was changed while it waited."""
        self._known.pop(number, None)


@dataclass
class Slots:
    """How many jobs may run, and how many do. ``limits`` is the setting :data:`SLOTS`;
    ``client`` gives a client's network and its most sessions (0 is no limit)."""

    free: int
    limits: Mapping[str, int]
    client: Callable[[str], tuple[str, int]]
    needs_alone: Callable[[str], bool] = lambda kind: False
    used: Counter[str] = field(default_factory=Counter)
    backups: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    fenced: set[str] = field(default_factory=set)

    def take(self, job: Waiting) -> None:
        """Count a job that runs, or is about to."""
        self.used[f"repository:{job.repository}"] += 1
        if job.client:
            self.used[f"client:{job.client}"] += 1
            self.used[f"network:{self.client(job.client)[0]}"] += 1
        if job.is_backup:
            self.backups.add(job.plan)
        if job.task:
            self.tasks.add(job.task)
        if job.repository and self.needs_alone(job.type):
            self.alone.add(job.repository)

    def refuses(self, job: Waiting) -> str:
        """Return why a job cannot start now, empty when it can."""
        if self.free <= 0:
            return "slots"
        if (job.is_backup and job.plan in self.backups) or (job.task and job.task in self.tasks):
            return "busy"
        where = f"repository:{job.repository}"
        if job.repository:
            if job.repository in self.alone or job.repository in self.fenced:
                return "repository"
            if self.needs_alone(job.type) and self.used[where]:
                self.fenced.add(job.repository)
                return "repository"
            if self._full(where):
                return "repository"
        if job.client:
            network, most = self.client(job.client)
            if network and self._full(f"network:{network}"):
                return "network"
            if most and self.used[f"client:{job.client}"] >= most:
                return "client"
        return ""

    def _full(self, where: str) -> bool:
        most = self.limits.get(where, 0)
        return bool(most) and self.used[where] >= most


def needs_alone(job_type: Any) -> bool:
    """Tell whether jobs of a type run only while nobody else uses their repository."""
    return bool(getattr(job_type, "needs_repository_alone", False))


def slots_of(
    root: Root, active: Iterable[Waiting], *, free: int,
    job_types: Mapping[str, Any] | None = None,
) -> Slots:  # fmt: skip
    """Return the slots as a store has them, with the active jobs counted. ``job_types`` by
    name tell which jobs need their repository alone."""
    known: dict[str, tuple[str, int]] = {}

    def client(name: str) -> tuple[str, int]:
        if name not in known:
            record = root.clients.find("name", name)
            known[name] = (record.network, record.max_sessions) if record else ("", 0)
        return known[name]

    slots = Slots(
        free, dict(root.settings.get(SLOTS, {})), client,
        lambda kind: needs_alone((job_types or {}).get(kind)),
    )  # fmt: skip
    for job in active:
        slots.take(job)
    return slots


def limits_of(root: Root) -> dict[tuple[str, str], int]:
    """Return the limits that are set, by what (repository, network) and name."""
    found = {}
    for where, most in sorted(root.settings.get(SLOTS, {}).items()):
        what, _, name = where.partition(":")
        found[what, name] = int(most)
    return found


def set_limit(root: Root, what: str, name: str, most: int) -> None:
    """Set how many jobs may run at once for a repository or network; 0 takes the limit away."""
    where, before = f"{what}:{name}", dict(root.settings.get(SLOTS, {}))
    after = {key: value for key, value in before.items() if key != where}
    if most:
        after[where] = most
    if after != before:
        root.settings[SLOTS] = after


class Holds:
    """Whether a job of a schedule has to wait for the end of a pause or for a window."""

    def __init__(self, root: Root, kinds: Mapping[str, Any], now: datetime) -> None:
        self._root, self._kinds, self._now = root, kinds, now
        self._pauses = Pauses.at(root, now)
        self._open: dict[str, bool] = {}

    def __call__(self, job: Waiting) -> bool:
        if job.origin != BY_SCHEDULE:
            return False
        if self._pauses.of(
            client=job.client, plan=job.plan, repository=job.repository, task=job.task
        ):
            return True
        if job.schedule not in self._open:
            try:
                rule = rule_named(self._root, self._kinds, job.schedule)
                self._open[job.schedule] = rule is None or rule.windows.is_open(self._now)
            except BorgCubeError:
                self._open[job.schedule] = True  # the plan has said already that it is broken
        return not self._open[job.schedule]


def select(
    queued: Iterable[Waiting], slots: Slots, *, holds: Callable[[Waiting], bool], now: datetime
) -> Iterator[Waiting]:
    """Yield the jobs that may start now, in order. Who takes one calls ``slots.take`` and
    lowers ``slots.free`` before asking for the next."""
    for job in sorted(queued, key=lambda job: (job.origin == BY_SCHEDULE, job.number)):
        if slots.free <= 0:
            return
        if not lifecycle.time_has_come(job.created_at, job.not_before, now):
            continue
        if not holds(job) and not slots.refuses(job):
            yield job
