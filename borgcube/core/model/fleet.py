"""How the fleet stands, kept ready for pages: one status for each plan, the plans of the
server, of each client and of each repository in the order of their urgency, and what each
repository took in.

Only :mod:`borgcube.core.standing` changes it, in the transaction of the change that it
tells of. Pages and control methods read it; a page costs what it shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent import Persistent

from borgcube.core.model.records import Record

GOOD, WARN, BAD = "good", "warn", "bad"
LEVELS = (BAD, WARN, GOOD)  # in the order of urgency
RANK = {level: rank for rank, level in enumerate(LEVELS)}
# Why a plan is at its level.
NEVER, NEVER_FAILED, FAILED, STALE, WARNINGS, FINE = (
    "never", "never-failed", "failed", "stale", "warnings", "fine"
)  # fmt: skip
EVERY_PLAN = ""


def of_client(name: str) -> str:
    """Return the group of a client's plans."""
    return f"client:{name}"


def of_repository(name: str) -> str:
    """Return the group of a repository's plans."""
    return f"repository:{name}"


class PlanStatus(Record):
    """How one plan stands.

    ``level`` and ``reason`` are the verdict, since ``since``. ``days`` has an entry
    ``(day, worst level, ended well, ended badly)`` for each of the last days on which a
    backup ended, oldest first. ``active`` are the backups that wait or run, the newest last;
    ``failures`` counts those that failed since one went well. At ``stale_at`` the newest
    archive is too old.
    """

    plan: str = ""
    client: str = ""
    repository: str = ""
    level: str = WARN
    reason: str = NEVER
    since: str = ""
    last_job: str = ""
    last_state: str = ""
    last_at: str = ""
    cause: dict[str, Any] | None = None
    failures: int = 0
    active: tuple[str, ...] = ()
    archive: str = ""
    archive_name: str = ""
    archive_number: int = 0
    archive_at: str = ""
    size: int = 0
    stale_at: str = ""
    days: tuple[tuple[str, str, int, int], ...] = ()

    @property
    def running(self) -> str:
        """Return the ID of the newest backup that waits or runs, else nothing."""
        return self.active[-1] if self.active else ""


class Standing(Persistent):  # type: ignore[misc]  # persistent has no types
    """A group of plans: their order, how many are at each level, what they protect."""

    def __init__(self) -> None:
        super().__init__()
        self.order = OOTreeSet()  # (rank, plan)
        self.counts: dict[str, int] = {}
        self.protected = 0  # bytes in the newest archive of each

    @property
    def total(self) -> int:
        """Return how many plans there are."""
        return sum(self.counts.values())

    @property
    def worst(self) -> str:
        """Return the worst level, empty without a plan."""
        return LEVELS[self.order.minKey()[0]] if self.total else ""

    def plans(self, *, after: tuple[int, str] | None = None) -> Iterator[tuple[int, str]]:
        """Yield (rank, plan), the most urgent first."""
        found: Iterator[tuple[int, str]] = iter(
            self.order.keys(min=after, excludemin=after is not None)
        )
        return found

    def count(self, level: str, step: int) -> None:
        """Add to the number of plans at a level."""
        self.counts = {**self.counts, level: self.counts.get(level, 0) + step}


class RepositoryStatus(Persistent):  # type: ignore[misc]  # persistent has no types
    """What a repository took in, and how its disk fills.

    ``days`` maps a day (``2026-01-31``) to ``{"new", "archives", "free", "disk"}``: bytes
    stored anew, archives added, and free and all bytes of its disk as last seen that day
    (None when not looked at). Where its directory was measured, ``"stored"`` is the bytes
    that it took and ``"held"`` what :attr:`held` was then. ``archives`` maps the IDs of its
    archives to their numbers. ``held`` is the original size in bytes of all archives that are
    in it; ``unsized`` of them have none written down. ``quarantined`` are the IDs of those in
    quarantine.
    """

    held = 0
    unsized = 0
    quarantined: Collection[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.days = OOBTree()
        self.archives = OOBTree()


class Fleet(Persistent):  # type: ignore[misc]  # persistent has no types
    """All of it."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses = OOBTree()
        self.groups = OOBTree()
        self.clients = OOTreeSet()  # (rank of its worst plan, client)
        self.due = OOTreeSet()  # (stale_at, plan)
        self.repositories = OOBTree()

    def status(self, plan: str) -> PlanStatus | None:
        """Return the status of a plan, None when there is no such plan."""
        found: PlanStatus | None = self.statuses.get(plan)
        return found

    def group(self, key: str = EVERY_PLAN) -> Standing:
        """Return a group of plans; an empty one where there is none."""
        found: Standing | None = self.groups.get(key)
        return found if found is not None else Standing()

    def repository(self, name: str) -> RepositoryStatus:
        """Return what a repository took in; nothing where it is not known."""
        found: RepositoryStatus | None = self.repositories.get(name)
        return found if found is not None else RepositoryStatus()

    def put(self, status: PlanStatus, **values: Any) -> None:
        """Set fields of a status, new or known, and keep all groups true."""
        placed = self.statuses.get(status.plan) is status
        moves = not placed or any(
            name in values and values[name] != getattr(status, name)
            for name in ("level", "client", "repository", "size", "stale_at")
        )
        if moves and placed:
            self._take_out(status)
        for name, value in values.items():
            setattr(status, name, value)
        if not placed:
            self.remove(status.plan)
            self.statuses[status.plan] = status
        if moves:
            self._put_in(status)

    def remove(self, plan: str) -> None:
        """Forget a plan; nothing happens when it is not known."""
        status = self.statuses.get(plan)
        if status is not None:
            self._take_out(status)
            del self.statuses[plan]

    def _keys(self, status: PlanStatus) -> tuple[str, str, str]:
        return EVERY_PLAN, of_client(status.client), of_repository(status.repository)

    def _take_out(self, status: PlanStatus) -> None:
        self._place_client(status.client, -1)
        for key in self._keys(status):
            group = self.groups[key]
            group.order.remove((RANK[status.level], status.plan))
            group.count(status.level, -1)
            group.protected -= status.size
            if not group.total and key != EVERY_PLAN:
                del self.groups[key]
        self._place_client(status.client, 1)
        if status.stale_at:
            self.due.discard((status.stale_at, status.plan))

    def _put_in(self, status: PlanStatus) -> None:
        self._place_client(status.client, -1)
        for key in self._keys(status):
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Standing()
            group.order.add((RANK[status.level], status.plan))
            group.count(status.level, 1)
            group.protected += status.size
        self._place_client(status.client, 1)
        if status.stale_at:
            self.due.add((status.stale_at, status.plan))

    def _place_client(self, client: str, step: int) -> None:
        group = self.groups.get(of_client(client))
        if group is None or not group.total:
            return
        place = RANK[group.worst], client
        if step > 0:
            self.clients.add(place)
        else:
            self.clients.discard(place)
