"""Keeps the fleet's status true: what each event means for the plans and repositories.

:meth:`borgcube.core.store.Root.record` calls :func:`follow` with every event, in its
transaction, so that no change can forget it. Time alone changes a status too: the daemon
calls :func:`age` now and then. :func:`differences` makes the status anew from jobs and
archives and compares: tests and `borgcube doctor` use it. Nothing else writes to the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from BTrees.OOBTree import OOTreeSet

from borgcube.core import events, events_keeping
from borgcube.core.model import Archive, Job, Plan
from borgcube.core.model.fleet import (
    BAD,
    FAILED,
    FINE,
    GOOD,
    NEVER,
    NEVER_FAILED,
    RANK,
    STALE,
    WARN,
    WARNINGS,
    Fleet,
    PlanStatus,
    RepositoryStatus,
)  # fmt: skip

if TYPE_CHECKING:
    from borgcube.core.store import Root
from borgcube.core.rules import matching_nothing
from borgcube.core.untrusted import words

BACKUP = "backup"  # the job type whose runs say how a plan stands
STRIP_DAYS = 30
STORAGE_DAYS = 400
STALE_AFTER = timedelta(days=2)
MAX_RUNS = 3000  # of one plan, looked at to make its status anew

WELL = {"done": GOOD, "warning": WARN}
BADLY = {"failed": BAD, "lost": BAD}
ENDED = {**WELL, **BADLY, "cancelled": ""}
# What follows from jobs and archives alone; ``since`` is history of its own.
DERIVED = tuple(name for name in PlanStatus.field_names()
                if name not in ("id", "created_at", "since"))  # fmt: skip
JUDGED = ("archive", "stale_at", "last_state")


def utc(moment: str) -> datetime:
    """Return the aware time of a stored string; the beginning of time for no time at all."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def stale_after(root: Root, plan: Plan | None) -> timedelta:
    """Return how old the newest archive of a plan may get before the plan needs a look: as its
    schedule says, else two days."""
    timetable = getattr(root, "timetable", None)  # evolution makes it after the first status
    entry = timetable.get("plan", plan.name) if timetable is not None and plan else None
    return timedelta(seconds=entry.patience_s) if entry and entry.patience_s else STALE_AFTER


def judge(status: Any, now: datetime) -> tuple[str, str]:
    """Return level and reason of a plan from the rest of its status."""
    fresh = bool(status.archive) and now < utc(status.stale_at)
    if status.last_state in BADLY:
        if not status.archive:
            return BAD, NEVER_FAILED
        return WARN if fresh else BAD, FAILED
    if not status.archive:
        return WARN, NEVER
    if not fresh:
        return WARN, STALE
    return (WARN, WARNINGS) if status.last_state == "warning" else (GOOD, FINE)


def with_run(
    days: tuple[tuple[str, str, int, int], ...], day: str, state: str
) -> tuple[tuple[str, str, int, int], ...]:
    """Return the days of a status with one more run that ended on ``day``."""
    level = ENDED[state]
    if not level:
        return days
    known = {entry[0]: entry for entry in days}
    _, worst, good, bad = known.get(day, (day, level, 0, 0))
    worst = min(worst, level, key=RANK.__getitem__)
    known[day] = day, worst, good + (state in WELL), bad + (state in BADLY)
    return tuple(known[name] for name in sorted(known))[-STRIP_DAYS:]


def _trimmed(
    days: tuple[tuple[str, str, int, int], ...], now: datetime
) -> tuple[tuple[str, str, int, int], ...]:
    first = f"{now - timedelta(days=STRIP_DAYS - 1):%Y-%m-%d}"
    return tuple(entry for entry in days if entry[0] >= first)


def _of_archive(root: Root, plan: Plan | None, archive: Archive | None) -> dict[str, Any]:
    if archive is None:
        return {"archive": "", "archive_name": "", "archive_number": 0, "archive_at": "",
                "size": 0, "stale_at": ""}  # fmt: skip
    at = archive.at
    size = archive.stats.get("size")
    return {
        "archive": archive.id, "archive_name": archive.name, "archive_at": at,
        "archive_number": root.archives.number_of(archive),
        "size": size if isinstance(size, int) else 0,
        "stale_at": (utc(at) + stale_after(root, plan)).astimezone(UTC).isoformat() if at else "",
    }  # fmt: skip


def _verdict(status: Any, now: datetime) -> dict[str, Any]:
    level, reason = judge(status, now)
    over = not status.stale_at or utc(status.stale_at) <= now
    return {"level": level, "reason": reason, "stale_at": "" if over else status.stale_at}


def recompute(root: Root, plan: Plan, now: datetime) -> PlanStatus:
    """Return the status of a plan, made from its newest jobs and its newest archive."""
    made = PlanStatus(plan=plan.name, client=plan.client, repository=plan.repository)
    since = f"{now - timedelta(days=STRIP_DAYS - 1):%Y-%m-%d}"
    last: Job | None = None
    streak, active = True, []
    for job in _runs(root, plan.name):
        if job.state not in ENDED:
            active.append(job.id)
            continue
        last = last or job
        if job.state in BADLY:
            made.failures += streak
        elif job.state in WELL:
            streak = False
        day = job.finished_at[:10]
        if day < since and not streak:
            break
        if day >= since:
            made.days = with_run(made.days, day, job.state)
    made.active = tuple(reversed(active))
    if last is not None:
        made.last_job, made.last_state = last.id, last.state
        made.last_at, made.cause = last.finished_at, last.cause
    found = root.archives.newest(1, _counts, plan=plan.name)
    for name, value in _of_archive(root, plan, found[0] if found else None).items():
        setattr(made, name, value)
    for name, value in _verdict(made, now).items():
        setattr(made, name, value)
    return made


def _runs(root: Root, plan: str) -> Iterator[Any]:
    """Yield the newest backups of a plan, ordered by their queueing."""
    before: int | None = None
    for _ in range(MAX_RUNS // 50):
        page = root.jobs.page(50, before=before, plan=plan, type=BACKUP)
        yield from page.records
        before = page.before
        if before is None:
            return


def refresh(root: Root, name: str, *, now: datetime | None = None) -> PlanStatus | None:
    """Make the status of a plan anew from jobs and archives; None when there is no plan.

    For changes that no event tells of, such as an archive that no longer counts.
    """
    plan = root.plans.find("name", name)
    if plan is None:
        root.fleet.remove(name)
        return None
    made = recompute(root, plan, now or datetime.now(UTC))
    status = root.fleet.status(name) or PlanStatus(plan=name, client=made.client,
                                                   repository=made.repository)  # fmt: skip
    _put(root, status, **{field: getattr(made, field) for field in DERIVED})
    return status


def _put(root: Root, status: PlanStatus, **values: Any) -> None:
    """Store changes of a status; ``since`` follows the reason."""
    reason = values.get("reason", status.reason)
    if reason != status.reason or not status.since:
        values["since"] = events.now()
    root.fleet.put(status, **values)


def _settle(root: Root, status: PlanStatus, now: datetime, **values: Any) -> None:
    """Store changes of a status and what they mean for its level."""
    seen = SimpleNamespace(**{name: values.get(name, getattr(status, name)) for name in JUDGED})
    _put(root, status, **{**values, **_verdict(seen, now)})


def age(root: Root, *, now: datetime | None = None, limit: int = 500) -> int:
    """Judge again up to ``limit`` plans whose newest archive has become too old; returns
    how many there were. Each is told of once, with a ``plan.stale`` event."""
    moment = now or datetime.now(UTC)
    late: list[tuple[str, str]] = []
    for stale_at, plan in root.fleet.due.keys():  # noqa: SIM118  # a tree set, not a mapping
        if utc(stale_at) > moment or len(late) >= limit:
            break
        late.append((stale_at, plan))
    for _, plan in late:
        status = root.fleet.statuses[plan]
        _settle(root, status, moment)
        root.record(events.PlanStale(
            plan=plan, client=status.client, repository=status.repository,
            archive_at=status.archive_at,
        ))  # fmt: skip
    return len(late)


def note_space(
    root: Root, repository: str, *, free: int, disk: int, day: str, stored: int | None = None
) -> None:
    """Keep how much of a repository's disk is free and how much its directory takes (None
    when that was not measured), in bytes: the day's latest counts."""
    storage = _storage(root, repository)
    measured = {} if stored is None else {"stored": stored, "held": storage.held}
    _note_day(storage, day, free=free, disk=disk, **measured)


def _storage(root: Root, name: str) -> RepositoryStatus:
    found: RepositoryStatus | None = root.fleet.repositories.get(name)
    if found is None:
        found = root.fleet.repositories[name] = RepositoryStatus()
    return found


def _note_day(storage: RepositoryStatus, day: str, **values: Any) -> None:
    entry = storage.days.get(day) or {"new": 0, "archives": 0, "free": None, "disk": None}
    storage.days[day] = {**entry, **values}
    while len(storage.days) > STORAGE_DAYS:
        del storage.days[storage.days.minKey()]


def _run_queued(root: Root, event: events.JobQueued) -> None:
    status = root.fleet.status(event.plan)
    if status is not None and event.job_type == BACKUP:
        root.fleet.put(status, active=(*status.active, event.job))


def _run_ended(root: Root, event: events.JobFinished | events.JobLost) -> None:
    status = root.fleet.status(event.plan)
    if status is None or event.job_type != BACKUP:
        return
    job = root.jobs.find("id", event.job)
    note_run(root, status, job)


def note_run(root: Root, status: PlanStatus, job: Job) -> None:
    """Note in a plan's status that a backup of it ended."""
    now = utc(job.finished_at)
    if status.last_job and int(job.id) < int(status.last_job):
        # A retry that waited, and others were quicker: rare, and not worth rules of its own.
        refresh(root, status.plan, now=now)
        return
    failures = 0 if job.state in WELL else status.failures + (job.state in BADLY)
    _settle(
        root, status, now, last_job=job.id, last_state=job.state, last_at=job.finished_at,
        cause=job.cause, failures=failures,
        active=tuple(one for one in status.active if one != job.id),
        days=_trimmed(with_run(status.days, job.finished_at[:10], job.state), now),
    )  # fmt: skip


def _count_size(storage: RepositoryStatus, archive: Archive, step: int) -> None:
    """Count an archive's original size in (1) or out (-1)."""
    size = archive.stats.get("size")
    if isinstance(size, int):
        storage.held += step * size
    else:
        storage.unsized += step


def sum_up(storages: Mapping[str, RepositoryStatus], archives: Iterable[Archive]) -> None:
    """Make anew what each repository holds, from all archives: for older stores."""
    for storage in storages.values():
        storage.held = storage.unsized = 0
    for archive in archives:
        if archive.repository in storages:
            _count_size(storages[archive.repository], archive, 1)


def archive_added(root: Root, archive: Archive) -> None:
    """Note in repository and plan that an archive was stored in the table."""
    number = root.archives.number_of(archive)
    storage = _storage(root, archive.repository)
    if archive.id not in storage.archives:
        _count_size(storage, archive, 1)
    storage.archives[archive.id] = number
    day = archive.at[:10]
    if day:
        entry = storage.days.get(day) or {"new": 0, "archives": 0}
        size = archive.stats.get("new_size")
        _note_day(storage, day, archives=entry["archives"] + 1,
                  new=entry["new"] + (size if isinstance(size, int) else 0))  # fmt: skip
    status = root.fleet.status(archive.plan) if archive.plan else None
    if status is not None and number >= status.archive_number and _counts(archive):
        plan = root.plans.find("name", archive.plan)
        _settle(root, status, datetime.now(UTC), **_of_archive(root, plan, archive))


def archive_removed(root: Root, archive: Archive) -> None:
    """Note that an archive was taken out of the table."""
    storage = _storage(root, archive.repository)
    if storage.archives.pop(archive.id, None) is not None:
        _count_size(storage, archive, -1)
    _archive_left(root, archive.plan, archive.id)


def _counts(archive: Archive) -> bool:
    """Tell whether an archive makes its plan safe: not one that is deleted, nor one in
    quarantine."""
    return not archive.deleted_at and not archive.quarantine


def _archive_left(root: Root, name: str, archive_id: str) -> None:
    status = root.fleet.status(name) if name else None
    if status is not None and status.archive == archive_id:
        found = root.archives.newest(1, _counts, plan=name)
        plan = root.plans.find("name", name)
        _settle(root, status, datetime.now(UTC),
                **_of_archive(root, plan, found[0] if found else None))  # fmt: skip


def _archive_pruned(root: Root, event: events_keeping.ArchivePruned) -> None:
    _archive_left(root, event.plan, event.id)


def _quarantined(root: Root, event: events_keeping.ArchiveQuarantined) -> None:
    storage = _storage(root, event.repository)
    if not storage.quarantined:
        storage.quarantined = OOTreeSet()
    storage.quarantined.insert(event.id)  # type: ignore[attr-defined]
    _archive_left(root, event.plan, event.id)


def _quarantine_ended(root: Root, event: events_keeping.ArchiveQuarantineEnded) -> None:
    storage = _storage(root, event.repository)
    if event.id in storage.quarantined:
        storage.quarantined.remove(event.id)  # type: ignore[attr-defined]
    _archive_came(root, event)


def _archive_came(
    root: Root,
    event: events_keeping.ArchiveUndeleted | events_keeping.ArchiveAssigned
    | events_keeping.ArchiveQuarantineEnded,
) -> None:  # fmt: skip
    status = root.fleet.status(event.plan) if event.plan else None
    if status is None:
        return
    for archive in root.archives.oldest("id", event.id):
        number = root.archives.number_of(archive)
        newer = number >= status.archive_number and _counts(archive)
        if archive.repository == event.repository and newer:
            plan = root.plans.find("name", event.plan)
            _settle(root, status, datetime.now(UTC), **_of_archive(root, plan, archive))


def _plan_told(root: Root, event: events.PlanAdded | events.PlanChanged) -> None:
    refresh(root, event.plan)


def _plan_removed(root: Root, event: events.PlanRemoved) -> None:
    root.fleet.remove(event.plan)


def _repository_removed(root: Root, event: events.RepositoryRemoved) -> None:
    root.fleet.repositories.pop(event.repository, None)


_MEANING: dict[type[events.Event], Callable[[Root, Any], None]] = {
    events.JobQueued: _run_queued,
    events.JobFinished: _run_ended,
    events.JobLost: _run_ended,
    events.PlanAdded: _plan_told,
    events.PlanChanged: _plan_told,
    events.PlanRemoved: _plan_removed,
    events.RepositoryRemoved: _repository_removed,
    events_keeping.ArchivePruned: _archive_pruned,
    events_keeping.ArchiveUndeleted: _archive_came,
    events_keeping.ArchiveAssigned: _archive_came,
    events_keeping.ArchiveQuarantined: _quarantined,
    events_keeping.ArchiveQuarantineEnded: _quarantine_ended,
}


def follow(root: Root, event: events.Event) -> None:
    """Note what an event means for the fleet, in the transaction that records it."""
    meaning = _MEANING.get(type(event))
    if meaning is not None:
        meaning(root, event)


def unused_exclusions(root: Root, plan: Plan) -> list[str]:
    """Return the exclusions of a plan, as it has them now, that matched nothing when its
    newest archive was made, as far as its engine could say."""
    now = {words(text) for text in (*plan.excludes, *plan.patterns)}
    for archive in root.archives.newest(1, plan=plan.name):
        found = (archive.stats.get("exclusions") or {}).get("unused") or ()
        return [text for text in found if text in now]
    return []


def rule_remarks(root: Root, rule: Any) -> list[str]:
    """Return, in words, the patterns of a notification rule that fit nothing there is."""

    def names(table: Any) -> Callable[[str], Iterator[str]]:
        return lambda begin: table.values("name", least=begin)

    return matching_nothing(rule, {"clients": names(root.clients), "plans": names(root.plans),
                                   "repositories": names(root.repositories)})  # fmt: skip


def make(root: Root, *, now: datetime | None = None) -> None:
    """Make everything from plans, jobs and archives: for the store of an older release."""
    for archive in root.archives.rows.values():
        archive_added(root, archive)
    for plan in root.plans.rows.values():
        refresh(root, plan.name, now=now)


def differences(
    root: Root, *, now: datetime | None = None, plans: list[str] | None = None
) -> list[str]:
    """Return, in words, where the status does not say what jobs and archives say.

    Looks at the named plans, or at all and at the sums too.
    """
    moment = now or datetime.now(UTC)
    found = []
    names = plans if plans is not None else list(root.plans.values("name"))
    for name in names:
        plan, status = root.plans.find("name", name), root.fleet.status(name)
        if plan is None or status is None:
            found.append(f"plan {name}: {'no plan' if plan is None else 'no status'}")
            continue
        made = recompute(root, plan, moment)
        # Time has passed that ``age`` will note in a moment.
        behind = bool(status.stale_at) and utc(status.stale_at) <= moment
        for field in DERIVED:
            kept, wanted = getattr(status, field), getattr(made, field)
            if field == "days":
                kept = _trimmed(kept, moment)
            if field == "failures" and kept > wanted:
                continue  # the oldest of them were dropped from the history
            if kept != wanted and not (behind and field in ("level", "reason", "stale_at")):
                found.append(f"plan {name}: {field} is {kept!r}, should be {wanted!r}")
    return found if plans is not None else found + _wrong_sums(root)


def _wrong_sums(root: Root) -> list[str]:
    """Return where groups, order or deadlines do not say what the statuses say."""
    made = Fleet()
    for status in root.fleet.statuses.values():
        copy = PlanStatus(**{name: getattr(status, name) for name in status.field_names()})
        made.put(copy)
    found = []
    for key in sorted({*made.groups, *root.fleet.groups}):
        kept, wanted = root.fleet.group(key), made.group(key)
        counts = {level: number for level, number in kept.counts.items() if number}
        if (list(kept.order), counts, kept.protected) != (
            list(wanted.order), wanted.counts, wanted.protected,
        ):  # fmt: skip
            found.append(f"group {key or 'of all plans'}: its order or sums are wrong")
    for name in ("clients", "due"):
        if list(getattr(root.fleet, name)) != list(getattr(made, name)):
            found.append(f"the list {name} is wrong")
    summed = {name: RepositoryStatus() for name in root.fleet.repositories}
    sum_up(summed, root.archives.rows.values())
    for repository, storage in root.fleet.repositories.items():
        if len(storage.archives) != root.archives.count(repository=repository):
            found.append(f"repository {repository}: its list of archives is wrong")
        held = summed[repository]
        if (storage.held, storage.unsized) != (held.held, held.unsized):
            found.append(f"repository {repository}: the size of its archives is wrong")
        marked = {one.id for one in root.archives.oldest("repository", repository)
                  if one.quarantine}  # fmt: skip
        if marked != set(storage.quarantined):
            found.append(f"repository {repository}: its list of archives in quarantine is wrong")
    return found
