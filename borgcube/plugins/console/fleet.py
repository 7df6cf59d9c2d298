"""What pages show of the fleet's status: how safe plans are, the most urgent first.

The status is kept in the store (``core.model.fleet``); here it is only read, page by page,
for what the user may see. Nothing walks all plans.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.model import PlanStatus, Standing
from borgcube.core.model import fleet as model
from borgcube.core.planning import Pauses
from borgcube.core.quarantine import counts
from borgcube.core.standing import STRIP_DAYS
from borgcube.core.texts import _

PAGE = 50
MAX_URGENT = 500  # plans looked at for what needs somebody
WORDS = {
    model.NEVER: _("Not backed up yet"),
    model.NEVER_FAILED: _("Never backed up: the last try failed"),
    model.FAILED: _("The last backup failed"),
    model.STALE: _("The newest backup is older than it should be"),
    model.WARNINGS: _("Backed up, but some files could not be read"),
    model.FINE: _("Backed up"),
}
NONE_LEFT = _("Backed up, but no archive is left that can be restored")
HELD = {
    "pause": _("paused"), "blackout": _("after a blackout"),
    "busy": _("after the present one"), "away": _("when the client answers"),
    "broken": _("its schedule is broken"),
}  # fmt: skip
URGENT = frozenset({model.NEVER_FAILED, model.FAILED, model.STALE})


@dataclass
class Safety:
    """How safe what one plan covers is, in words."""

    plan: str
    client: str
    repository: str
    level: str
    reason: str
    words: str
    last_state: str = "none"
    last_job: str = ""
    last_at: str = ""
    running: str = ""
    next_at: str = ""
    held: str = ""
    archive: str = ""
    archive_at: str = ""
    size: int = 0
    cause: dict[str, Any] | None = None
    days: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Overall:
    """All plans that somebody sees: how many there are, and how many at which level."""

    total: int = 0
    protected: int = 0
    bad: int = 0
    warn: int = 0
    first: Safety | None = None


def shown(status: PlanStatus, today: datetime | None = None, *, strip: bool = True) -> Safety:
    """Return a plan's status in words, with its strip of days if that is shown."""
    return Safety(
        plan=status.plan, client=status.client, repository=status.repository,
        level=status.level, reason=status.reason,
        # One that went well left an archive: it is gone, or in quarantine.
        words=NONE_LEFT if status.reason == model.NEVER and status.last_state in lifecycle.WELL
        else WORDS[status.reason],
        last_state=status.last_state or "none", last_job=status.last_job, last_at=status.last_at,
        running=status.running, archive=status.archive, archive_at=status.archive_at,
        size=status.size, cause=status.cause,
        days=_strip(status, today or datetime.now(UTC)) if strip else [],
    )  # fmt: skip


def timed(request: Any, found: list[Safety]) -> list[Safety]:
    """Add to each plan when it runs next, or what its next run waits for."""
    pauses = Pauses.at(request.db, datetime.now(UTC))
    for one in found:
        one.cause = request.words.data(one.cause)
        entry = request.db.timetable.get("plan", one.plan)
        if entry is None:
            continue
        pause = pauses.of(plan=one.plan, client=one.client, repository=one.repository)
        one.next_at = entry.start
        one.held = HELD.get("pause" if pause is not None else entry.held, "")
    return found


def _strip(status: PlanStatus, today: datetime) -> list[dict[str, str]]:
    known = {entry[0]: entry for entry in status.days}
    days = []
    for back in range(STRIP_DAYS - 1, -1, -1):
        day = f"{today - timedelta(days=back):%Y-%m-%d}"
        state, good, bad = known.get(day, (day, "", 0, 0))[1:]
        said = _("%(good)s good, %(bad)s failed", good=good, bad=bad) if good or bad else \
            _("no backup")  # fmt: skip
        days.append({
            "day": day, "state": state, "title": _("%(day)s: %(said)s", day=day, said=said)
        })  # fmt: skip
    return days


def safety(request: Any, plan: str) -> Safety:
    """Return how safe one plan is; raises ``KeyError`` when there is no such plan."""
    return timed(request, [shown(request.db.fleet.statuses[plan])])[0]


def _groups(request: Any, group: str) -> list[Standing]:
    """Return the groups whose plans the user sees: the one asked for, or those of the
    user's own clients where that is all plans."""
    fleet, me = request.db.fleet, request.me
    if not me.limited or group:
        return [fleet.group(group)]
    return [fleet.group(model.of_client(name)) for name in sorted(me.clients)]


def overall(request: Any) -> Overall:
    """Return how the plans stand that the user sees."""
    found = Overall()
    for group in _groups(request, model.EVERY_PLAN):
        found.total += group.total
        found.protected += group.protected
        found.bad += group.counts.get(model.BAD, 0)
        found.warn += group.counts.get(model.WARN, 0)
    if found.total:
        found.first = shown(request.db.fleet.statuses[next(_ordered(request))[1]], strip=False)
    return found


def _ordered(
    request: Any, group: str = model.EVERY_PLAN, after: tuple[int, str] | None = None
) -> Iterator[tuple[int, str]]:
    yield from heapq.merge(*(one.plans(after=after) for one in _groups(request, group)))


def safeties(
    request: Any, limit: int = PAGE, *, group: str = model.EVERY_PLAN, level: str = "",
    find: str = "", after: str = "",
) -> tuple[list[Safety], str]:  # fmt: skip
    """Return up to ``limit`` plans of a group, the most urgent first, and what to give as
    ``after`` for those that follow (empty at the end).

    ``level`` leaves only plans at that level, ``find`` those with these letters in the name
    of plan, client or repository. The group must be one that the user may see.
    """
    rank, colon, name = after.partition(":")
    cursor = (int(rank), name) if rank in ("0", "1", "2") and colon else None
    wanted = model.RANK.get(level)
    if wanted is not None and (cursor is None or cursor[0] < wanted):
        cursor = wanted, ""
    letters, texts = find.casefold(), request.db.plans.texts
    today = datetime.now(UTC)
    found: list[Safety] = []
    last = ""
    for place, plan in _ordered(request, group, cursor):
        if wanted is not None and place > wanted:
            break
        if letters and letters not in texts.get(plan, ""):
            continue
        if len(found) == limit:
            return timed(request, found), last
        found.append(shown(request.db.fleet.statuses[plan], today))
        last = f"{place}:{plan}"
    return timed(request, found), ""


def urgent(request: Any, limit: int) -> tuple[list[Safety], int]:
    """Return up to ``limit`` plans that somebody has to do something about, and how many
    more there are, at least."""
    found: list[Safety] = []
    more = 0
    for number, (place, plan) in enumerate(_ordered(request)):
        if model.LEVELS[place] == model.GOOD or number == MAX_URGENT:
            break
        status = request.db.fleet.statuses[plan]
        if status.reason not in URGENT:
            continue
        if len(found) < limit:
            found.append(shown(status, strip=False))
            found[-1].cause = request.words.data(status.cause)
        else:
            more += 1
    return found, more


def clients(
    request: Any, limit: int = PAGE, *, level: str = "", find: str = "", after: str = ""
) -> tuple[list[dict[str, Any]], str]:
    """Return up to ``limit`` clients by name, with how their plans stand, and what to give
    as ``after`` for those that follow (empty at the end).

    ``level`` leaves only clients whose worst plan is at that level.
    """
    names = _client_names(request, limit, level, find.casefold(), after)
    more = len(names) > limit
    rows = []
    for name in names[:limit]:
        client = request.db.clients.find("name", name)
        group = request.db.fleet.group(model.of_client(name))
        worst = None
        if group.total:
            worst = shown(request.db.fleet.statuses[group.order.minKey()[1]], strip=False)
        newest = request.db.archives.newest(1, counts, client=name)
        rows.append({
            "client": client, "plans": group.total, "worst": worst,
            "newest": newest[0].at if newest else "",
        })  # fmt: skip
    return rows, names[limit - 1] if more else ""


def _client_names(request: Any, limit: int, level: str, find: str, after: str) -> list[str]:
    db, me = request.db, request.me
    rank = model.RANK.get(level)
    if not me.limited and rank is None:
        named: list[str] = db.clients.named(limit + 1, after=after, find=find)
        return named
    if me.limited:
        names: Any = (n for n in sorted(me.clients) if n > after and n in db.clients.texts)
    else:
        names = _of_rank(db.fleet.clients, rank, after)
    found: list[str] = []
    for name in names:
        if find not in db.clients.texts.get(name, ""):
            continue
        if rank is not None and (rank, name) not in db.fleet.clients:
            continue
        found.append(name)
        if len(found) > limit:
            break
    return found


def _of_rank(ranked: Any, rank: int | None, after: str) -> Iterator[str]:
    for place, name in ranked.keys(min=(rank, after), excludemin=True):
        if place != rank:
            return
        yield name
