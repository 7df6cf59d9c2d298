"""What pages ask the store: lists a user may see, and how safe each plan is.

What everybody asks alike is computed once for a state of the journal and shared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from borgcube.core import lifecycle, listing
from borgcube.core.texts import _

Result = TypeVar("Result")
STRIP_DAYS = 30
STALE_AFTER = timedelta(days=2)
PAGE = 50
MAX_RECORDS = 100_000
MAX_RUNS = 400  # of one plan, looked at for its strip

GOOD, WARN, BAD, BUSY = "good", "warn", "bad", "busy"
DAY_OF = {lifecycle.DONE: GOOD, lifecycle.WARNING: WARN, lifecycle.FAILED: BAD,
          lifecycle.LOST: BAD}  # fmt: skip
RANK = {"": 0, GOOD: 1, WARN: 2, BAD: 3}

_shared: dict[str, tuple[Any, Any]] = {}
_lock = threading.Lock()


def shared(request: Any, name: str, compute: Callable[[], Result]) -> Result:
    """Return ``compute()``, once for each state of the journal and minute of time."""
    server = str(request.db.settings["server_id"])
    stamp = (request.db.journal.last, int(datetime.now(UTC).timestamp()) // 60)
    key = f"{server}:{name}"
    known = _shared.get(key)
    if known is not None and known[0] == stamp:
        found: Result = known[1]
        return found
    with _lock:
        known = _shared.get(key)
        if known is not None and known[0] == stamp:
            return known[1]  # type: ignore[no-any-return]
        found = compute()
        _shared[key] = (stamp, found)
        return found


def visible(
    request: Any, table: Any, limit: int, *, before: int | None = None, **equal: str
) -> list[Any]:
    """Return the newest records of a table that the user may see."""
    return listing.visible(request.me, table, limit, before=before, **equal)


def page(request: Any, name: str, filters: Sequence[str]) -> dict[str, Any]:
    """Return one page of the table ``name``, newest first, for its template: the records
    under that name, what was ``asked`` for, whether that is ``filtered``, where there is
    ``more``. The query string chooses: a filter's name, and ``before``, a number."""
    asked = {field: str(request.params.get(field, ""))[:100] for field in filters}
    equal = {field: value for field, value in asked.items() if value}
    before = str(request.params.get("before", ""))
    table = getattr(request.db, name)
    found = visible(
        request, table, PAGE + 1, **equal,
        before=int(before) if before.isdecimal() and len(before) < 18 else None,
    )  # fmt: skip
    more = ""
    if len(found) > PAGE:
        found = found[:PAGE]
        more = request.path_to(name, **equal, before=str(table.number_of(found[-1])))
    return {name: found, "asked": asked, "filtered": bool(equal), "more": more}


def by_name(request: Any, table: Any) -> list[Any]:
    """Return all records of a small table that the user may see, by name."""
    records = table.newest(MAX_RECORDS)
    if request.me.limited:
        records = [r for r in records
                   if request.me.sees(str(getattr(r, "client", "") or r.name))]  # fmt: skip
    return sorted(records, key=lambda record: str(record.name))


@dataclass
class Safety:
    """How safe what one plan covers is, as plain values: it outlives its request."""

    plan: str
    client: str
    repository: str
    level: str = WARN
    words: str = _("Not backed up yet")
    last_state: str = "none"
    last_job: str = ""
    last_at: str = ""
    running: str = ""
    next_at: str = ""
    archive: str = ""
    archive_at: str = ""
    size: int = 0
    cause: dict[str, Any] | None = None
    days: list[dict[str, str]] = field(default_factory=list)


def _strip(runs: list[Any], today: datetime) -> list[dict[str, str]]:
    worst: dict[str, str] = {}
    counts: dict[str, list[int]] = {}
    for job in runs:
        day, level = str(job.finished_at or job.created_at)[:10], DAY_OF.get(job.state, "")
        if not level:
            continue
        worst[day] = max(worst.get(day, ""), level, key=RANK.__getitem__)
        good_bad = counts.setdefault(day, [0, 0])
        good_bad[1 if level == BAD else 0] += 1
    days = []
    for back in range(STRIP_DAYS - 1, -1, -1):
        day = f"{today - timedelta(days=back):%Y-%m-%d}"
        good, bad = counts.get(day, (0, 0))
        said = _("%(good)s good, %(bad)s failed", good=good, bad=bad) if good or bad else \
            _("no backup")  # fmt: skip
        days.append(
            {
                "day": day,
                "state": worst.get(day, ""),
                "title": _("%(day)s: %(said)s", day=day, said=said),
            }
        )
    return days


def safety_of(root: Any, plan: Any, now: datetime) -> Safety:
    """Return how safe a plan's data is, from its newest runs and archive."""
    found = Safety(str(plan.name), str(plan.client), str(plan.repository))
    since = f"{now - timedelta(days=STRIP_DAYS):%Y-%m-%d}"
    runs: list[Any] = []
    before: int | None = None
    while len(runs) < MAX_RUNS:
        batch = root.jobs.newest(20, before=before, plan=plan.name)
        fresh = [job for job in batch if job.created_at >= since or not runs]
        runs += fresh
        if len(batch) < 20 or len(fresh) < len(batch):
            break
        before = root.jobs.number_of(batch[-1])
    ended = [job for job in runs if job.type == "backup" and job.state in lifecycle.ENDED]
    active = [job for job in runs if job.type == "backup" and job.state not in lifecycle.ENDED]
    found.running = str(active[0].id) if active else ""
    found.days = _strip(ended, now)
    for archive in root.archives.newest(1, plan=plan.name):
        found.archive, found.archive_at = str(archive.id), str(archive.start or archive.created_at)
        found.size = int(archive.stats.get("size") or 0)
    if ended:
        last = ended[0]
        found.last_job, found.last_state = str(last.id), str(last.state)
        found.last_at, found.cause = str(last.finished_at), last.cause
    _judge(found, now)
    return found


def _judge(found: Safety, now: datetime) -> None:
    fresh = False
    if found.archive_at:
        taken = datetime.fromisoformat(found.archive_at)
        taken = taken if taken.tzinfo else taken.replace(tzinfo=UTC)
        fresh = now - taken <= STALE_AFTER
    if found.last_state in (lifecycle.FAILED, lifecycle.LOST):
        found.level = BAD if not fresh else WARN
        found.words = _("The last backup failed")
        if not found.archive:
            found.level, found.words = BAD, _("Never backed up: the last try failed")
    elif not found.archive:
        found.level, found.words = WARN, _("Not backed up yet")
    elif not fresh:
        found.level, found.words = (
            WARN,
            _("No backup for more than %(days)s days", days=STALE_AFTER.days),
        )
    elif found.last_state == lifecycle.WARNING:
        found.level, found.words = WARN, _("Backed up, but some files could not be read")
    else:
        found.level, found.words = GOOD, _("Backed up")


def safeties(request: Any) -> list[Safety]:
    """Return the safety of every plan that the user may see, worst first."""

    def compute() -> list[Safety]:
        now = datetime.now(UTC)
        found = [safety_of(request.db, plan, now)
                 for plan in request.db.plans.newest(MAX_RECORDS)]  # fmt: skip
        return sorted(found, key=lambda one: (-RANK[one.level], one.plan))

    every = shared(request, "safeties", compute)
    return [one for one in every if request.me.sees(one.client)]


def expected_bytes(request: Any, job: Any) -> int:
    """Return how much a running backup will read, as its plan's last archive held."""
    if job.type != "backup" or not job.plan:
        return 0
    for archive in request.db.archives.newest(1, plan=job.plan):
        return int(archive.stats.get("size") or 0)
    return 0


def live_job(request: Any, job: Any) -> dict[str, Any]:
    """Return a job as data with its newest figures and what they are measured against."""
    data: dict[str, Any] = job.as_data()
    figures = request.progress_of(job.id)
    if figures:
        data["progress"] = dict(figures)
    data["expected"] = expected_bytes(request, job)
    data["ended"] = job.state in lifecycle.ENDED
    return data
