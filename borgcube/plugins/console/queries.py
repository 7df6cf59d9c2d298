"""What pages ask the store: lists that a user may see, page by page.

What everybody asks alike is computed once a minute and shared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from borgcube.core import lifecycle, listing, sight
from borgcube.core.model import Found
from borgcube.core.trash import in_sight

Result = TypeVar("Result")
PAGE = 50
MAX_RECORDS = 100_000
MAX_CHOICES = 200  # names in a list to choose from; more are typed
MAX_SUGGESTIONS = 8

_shared: dict[str, tuple[Any, Any]] = {}
_lock = threading.Lock()


def shared(
    request: Any, name: str, compute: Callable[[], Result], *, journal: bool = True
) -> Result:
    """Return ``compute()``, once for each minute of time and, unless ``journal`` is false,
    each state of the journal."""
    server = str(request.db.settings["server_id"])
    stamp = (request.db.journal.last if journal else 0, int(datetime.now(UTC).timestamp()) // 60)
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
    """Return the newest records of a table that the user may see; deleted archives are out of
    sight."""
    return listing.visible(request.me, table, limit, _where(request, table), before=before, **equal)


def _where(request: Any, table: Any) -> Any:
    """Return what leaves out records beside those of clients that are not seen, or None."""
    if table is request.db.archives:
        return in_sight
    return sight.of_jobs(request.me, request.db) if table is request.db.jobs else None


def day_bounds(table: Any, day: str) -> tuple[int | None, int | None]:
    """Return (above, before) for the records of one day (``2026-01-31``), both None for
    text that is no day."""
    try:
        begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None, None

    def when(record: Any) -> str:
        return str(getattr(record, "at", "") or record.created_at)

    first, last = (listing.number_at(table, moment, when=when)
                   for moment in (begin, begin + timedelta(days=1)))  # fmt: skip
    return first - 1, last


def page(request: Any, name: str, filters: Sequence[str]) -> dict[str, Any]:
    """Return one page of the table ``name``, newest first, for its template: the records
    under that name, what was ``asked`` for, whether that is ``filtered``, where there is
    ``more``, and whether the search stopped early (``partly``). The query string chooses: a
    filter's name, ``day``, and ``before``, a number. A name that is not known is looked for
    as a piece of one; if several have it they are ``suggested``."""
    asked = {field: str(request.params.get(field, ""))[:100] for field in (*filters, "day")}
    table = getattr(request.db, name)
    suggested: dict[str, list[str]] = {}
    for field in ("client", "plan"):
        asked[field], others = resolved(request, table, field, asked.get(field, ""))
        if others:
            suggested[field] = others
    equal = {field: asked[field] for field in filters if asked[field]}
    above, ends = day_bounds(table, asked["day"])
    given = str(request.params.get("before", ""))
    before = int(given) if given.isdecimal() and len(given) < 18 else None
    if ends is not None:
        before = ends if before is None else min(before, ends)
    found = Found()
    if not suggested:
        found = listing.page(
            request.me, table, PAGE, _where(request, table), before=before, above=above, **equal
        )
    kept = {field: value for field, value in asked.items() if value}
    more = ""
    if found.before is not None:
        more = request.path_to(name, **kept, before=str(found.before))
    return {name: found.records, "asked": asked, "filtered": bool(kept), "more": more,
            "partly": bool(more) and len(found.records) < PAGE, "suggested": suggested}  # fmt: skip


def resolved(request: Any, table: Any, field: str, text: str) -> tuple[str, list[str]]:
    """Return the name that was meant, and others that it could be when that is not clear."""
    names = getattr(request.db, f"{field}s")
    if not text:
        return text, []
    if not request.me.limited and table.find(field, text) is not None:
        return text, []
    # That somebody else's thing has just this name is not told by what else it could be.
    if names.find("name", text) is not None and request.me.sees(_client_of(names, text, field)):
        return text, []
    found = names.named(MAX_SUGGESTIONS * (1 if not request.me.limited else 50), find=text)
    if request.me.limited:
        found = [name for name in found if request.me.sees(_client_of(names, name, field))]
    if len(found) == 1:
        return str(found[0]), []
    return text, found[:MAX_SUGGESTIONS]


def _client_of(names: Any, name: str, field: str) -> str:
    return name if field == "client" else str(names.find("name", name).client)


def choices(request: Any, name: str) -> list[str] | None:
    """Return the names in the table ``name`` that the user may see, to choose from; None
    when they are too many for a list."""
    table = getattr(request.db, name)
    if not request.me.limited:
        found: list[str] = table.named(MAX_CHOICES + 1)
        return found if len(found) <= MAX_CHOICES else None
    clients = sorted(request.me.clients)
    if name == "clients":
        return [client for client in clients if table.find("name", client) is not None]
    names = [str(record.name) for client in clients for record in table.oldest("client", client)]
    return sorted(names) if len(names) <= MAX_CHOICES else None


def plans_with(request: Any, limit: int = MAX_CHOICES, **equal: str) -> tuple[list[str], int]:
    """Return up to ``limit`` names of plans that the user may see and whose indexed field has
    that value, in order, and how many there are in all."""
    plans = request.db.plans
    if not request.me.limited:
        found = sorted(str(plan.name) for plan in plans.newest(limit, **equal))
        return found, plans.count(**equal)
    found = sorted(str(plan.name) for client in request.me.clients
                   for plan in plans.newest(MAX_RECORDS, client=client, **equal))  # fmt: skip
    return found[:limit], len(found)


def by_name(request: Any, table: Any) -> list[Any]:
    """Return all records of a small table that the user may see, by name."""
    records = table.newest(MAX_RECORDS)
    if request.me.limited:
        records = [r for r in records
                   if request.me.sees(str(getattr(r, "client", "") or r.name))]  # fmt: skip
    return sorted(records, key=lambda record: str(record.name))


def expected_bytes(request: Any, job: Any) -> int:
    """Return how much a running backup will read, as its plan's last archive held."""
    if job.type != "backup" or not job.plan:
        return 0
    for archive in request.db.archives.newest(1, plan=job.plan):
        return int(archive.stats.get("size") or 0)
    return 0


def live_job(request: Any, job: Any) -> dict[str, Any]:
    """Return a job as data with its newest figures and what they are measured against."""
    data: dict[str, Any] = request.words.data(job.as_data())
    figures = request.progress_of(job.id)
    if figures:
        data["progress"] = dict(figures)
    data["expected"] = expected_bytes(request, job)
    data["ended"] = job.state in lifecycle.ENDED
    return data
