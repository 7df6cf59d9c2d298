"""What the dashboard's cards show. Each function gets the request and returns values, or
None for no card."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.access import Permission
from borgcube.core.texts import _, several
from borgcube.plugins.console import queries

MAX_CARDS = 60
MAX_PROBLEMS = 8
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
    found = [one for one in queries.safeties(request)
             if one.last_state in (lifecycle.FAILED, lifecycle.LOST)]  # fmt: skip
    doctor: list[dict[str, str]] = []
    if request.me.may(Permission.VIEW_SERVER):
        doctor = queries.shared(request, "doctor", lambda: list(request.act("doctor")))
    if not found and not doctor:
        return None
    return {"plans": found[:MAX_PROBLEMS], "more": max(0, len(found) - MAX_PROBLEMS),
            "doctor": doctor[:MAX_PROBLEMS]}  # fmt: skip


def plans_card(request: Any) -> dict[str, Any]:
    """Return a card for each plan, worst first."""
    found = queries.safeties(request)
    return {"plans": found[:MAX_CARDS], "more": max(0, len(found) - MAX_CARDS)}


def recent_card(request: Any) -> dict[str, Any]:
    """Return the newest jobs."""
    return {"jobs": queries.visible(request, request.db.jobs, 8)}


def storage_card(request: Any) -> dict[str, Any]:
    """Return each repository with its disk and what came in over the last days."""
    found = []
    for repository in queries.by_name(request, request.db.repositories):
        entry: dict[str, Any] = {"name": repository.name, "path": repository.path}
        entry.update(disk_of(str(repository.path)))
        entry["growth"] = growth(request, repository.name)
        found.append(entry)
    return {"repositories": found}


def disk_of(path: str) -> dict[str, Any]:
    """Return size and free bytes of the disk that holds a path; nothing when it is gone."""
    if not os.path.isdir(path):
        return {"there": False}
    usage = shutil.disk_usage(path)
    return {"there": True, "disk": usage.total, "free": usage.free,
            "used_part": round(100 * (usage.total - usage.free) / max(1, usage.total))}  # fmt: skip


def growth(request: Any, repository: str, days: int = queries.STRIP_DAYS) -> list[dict[str, Any]]:
    """Return the bytes stored anew on each of the last days."""

    def compute() -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        sums = {f"{now - timedelta(days=back):%Y-%m-%d}": 0 for back in range(days - 1, -1, -1)}
        for archive in request.db.archives.newest(5000, repository=repository):
            day = str(archive.start)[:10]
            if day < next(iter(sums)):
                break
            if day in sums:
                sums[day] += int(archive.stats.get("new_size") or 0)
        return [{"day": day, "bytes": value} for day, value in sums.items()]

    return queries.shared(request, f"growth:{repository}", compute)


def counted(plans: int) -> str:
    """Return a number of plans in words."""
    return several("%(n)s plan", "%(n)s plans", plans)


def first(one: queries.Safety) -> str:
    """Return what to look at first."""
    return _("First: %(plan)s. %(words)s.", plan=one.plan, words=one.words)


def sentence(request: Any) -> dict[str, str]:
    """Return the one sentence: is everything safe?"""
    found = queries.safeties(request)
    if not found:
        return {"level": "warn", "words": _("Nothing is backed up yet"),
                "more": _("Three steps: a repository, a client, a plan.")}  # fmt: skip
    bad = [one for one in found if one.level == queries.BAD]
    warn = [one for one in found if one.level == queries.WARN]
    total = len(found)
    if bad:
        return {"level": "bad", "words": several(
            "%(n)s of %(plans)s is not safe", "%(n)s of %(plans)s are not safe", len(bad),
            plans=counted(total),
        ), "more": first(bad[0])}  # fmt: skip
    if warn:
        return {"level": "warn", "words": several(
            "%(n)s of %(plans)s needs a look", "%(n)s of %(plans)s need a look", len(warn),
            plans=counted(total),
        ), "more": first(warn[0])}  # fmt: skip
    return {"level": "good", "words": _("Everything is backed up"),
            "more": _("%(plans)s, every last backup went well.", plans=counted(total))}  # fmt: skip
