"""What the dashboard's cards show. Each function gets the request and returns values, or
None for no card."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, date, datetime, timedelta
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.access import Permission
from borgcube.core.forecast import (
    LEAST_DAYS,
    WINDOW_DAYS,
    Forecast,
    Point,
    forecast,
    points_of,
)  # fmt: skip
from borgcube.core.model.fleet import BAD, WARN
from borgcube.core.standing import STRIP_DAYS
from borgcube.core.texts import _, several
from borgcube.plugins.console import fleet, queries

MAX_CARDS = 24
MAX_PROBLEMS = 8
MAX_REPOSITORIES = 20
FULL_SOON, FULL_VERY_SOON = timedelta(days=60), timedelta(days=14)
WAITING = ("queued", *lifecycle.ACTIVE)


def running_card(request: Any) -> dict[str, Any] | None:
    """Return the jobs that run or wait."""
    found = [
        job for state in reversed(WAITING)
        for job in queries.visible(request, request.db.jobs, 10, state=state)
    ]  # fmt: skip
    return {"jobs": [queries.live_job(request, job) for job in found[:20]]} if found else None


def problems_card(request: Any) -> dict[str, Any] | None:
    """Return what somebody has to do something about."""
    found, more = fleet.urgent(request, MAX_PROBLEMS)
    doctor: list[dict[str, str]] = []
    if request.me.may(Permission.VIEW_SERVER):
        doctor = queries.shared(
            request, "doctor", lambda: list(request.act("doctor")), journal=False
        )
    if not found and not doctor:
        return None
    return {"plans": found, "more": more, "doctor": doctor[:MAX_PROBLEMS]}


def plans_card(request: Any) -> dict[str, Any]:
    """Return a card for each plan, worst first."""
    found = fleet.safeties(request, MAX_CARDS)[0]
    return {"plans": found, "more": fleet.overall(request).total - len(found)}


def recent_card(request: Any) -> dict[str, Any]:
    """Return the newest jobs."""
    return {"jobs": queries.visible(request, request.db.jobs, 8)}


def storage_card(request: Any, *, limit: int = MAX_REPOSITORIES) -> dict[str, Any]:
    """Return each repository with its disk and what came in over the last days."""
    found = []
    for name in request.db.repositories.named(limit):
        repository = request.db.repositories.find("name", name)
        entry: dict[str, Any] = {"name": repository.name, "path": repository.path}
        entry.update(disk_of(str(repository.path)))
        entry["growth"] = growth(request, repository.name)
        entry["outlook"] = outlook(request, repository.name)
        found.append(entry)
    return {"repositories": found, "more": max(0, request.db.repositories.count() - len(found))}


def disk_of(path: str) -> dict[str, Any]:
    """Return size and free bytes of the disk that holds a path; nothing when it is gone."""
    if not os.path.isdir(path):
        return {"there": False}
    usage = shutil.disk_usage(path)
    return {"there": True, "disk": usage.total, "free": usage.free,
            "used_part": round(100 * (usage.total - usage.free) / max(1, usage.total))}  # fmt: skip


def growth(request: Any, repository: str, days: int = STRIP_DAYS) -> list[dict[str, Any]]:
    """Return the bytes stored anew on each of the last days."""
    now = datetime.now(UTC)
    known = request.db.fleet.repository(repository).days
    found = []
    for back in range(days - 1, -1, -1):
        day = f"{now - timedelta(days=back):%Y-%m-%d}"
        found.append({"day": day, "bytes": (known.get(day) or {"new": 0})["new"]})
    return found


def outlook(request: Any, repository: str) -> dict[str, Any]:
    """Return when a repository's disk will be full, and how it filled so far."""

    def compute() -> dict[str, Any]:
        today = datetime.now(UTC).date()
        first = f"{today - timedelta(days=WINDOW_DAYS)}"
        days = request.db.fleet.repository(repository).days.items(min=first)
        points = points_of(days)
        return {**_said(forecast(points, today), today), **_drawn(points)}

    return queries.shared(request, f"outlook:{repository}", compute, journal=False)


def _said(found: Forecast, today: date) -> dict[str, Any]:
    level = ""
    if found.day is not None:
        left = found.day - today
        level = BAD if left <= FULL_VERY_SOON else WARN if left <= FULL_SOON else ""
    return {"kind": found.kind, "level": level, "full_on": found.day,
            "a_day": found.bytes_a_day, "least_days": LEAST_DAYS}  # fmt: skip


def _drawn(points: list[Point]) -> dict[str, Any]:
    """Return the line of used space, as the points of a drawing of 300 by 40."""
    if len(points) < 2:
        return {"line": "", "since": None}
    first, span = points[0].day, max(1, (points[-1].day - points[0].day).days)
    line = " ".join(
        f"{300 * (one.day - first).days / span:.1f},{39 - 38 * (1 - one.free / one.disk):.1f}"
        for one in points
    )
    return {"line": line, "since": first}


def counted(plans: int) -> str:
    """Return a number of plans in words."""
    return several("%(n)s plan", "%(n)s plans", plans)


def first(one: fleet.Safety) -> str:
    """Return what to look at first."""
    return _("First: %(plan)s. %(words)s.", plan=one.plan, words=one.words)


def sentence(request: Any) -> dict[str, str]:
    """Return the one sentence: is everything safe?"""
    found = fleet.overall(request)
    if found.first is None:
        return {"level": "warn", "words": _("Nothing is backed up yet"),
                "more": _("Three steps: a repository, a client, a plan.")}  # fmt: skip
    if found.bad:
        return {"level": "bad", "words": several(
            "%(n)s of %(plans)s is not safe", "%(n)s of %(plans)s are not safe", found.bad,
            plans=counted(found.total),
        ), "more": first(found.first)}  # fmt: skip
    if found.warn:
        return {"level": "warn", "words": several(
            "%(n)s of %(plans)s needs a look", "%(n)s of %(plans)s need a look", found.warn,
            plans=counted(found.total),
        ), "more": first(found.first)}  # fmt: skip
    return {"level": "good", "words": _("Everything is backed up"), "more":
            _("%(plans)s, every last backup went well.", plans=counted(found.total))}  # fmt: skip
