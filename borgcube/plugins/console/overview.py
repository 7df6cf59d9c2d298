"""What the dashboard's cards show. Each function gets the request and returns values, or
None for no card."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.access import Permission
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


def sentence(request: Any) -> dict[str, str]:
    """Return the one sentence: is everything safe?"""
    found = queries.safeties(request)
    if not found:
        return {"level": "warn", "words": "Nothing is backed up yet",
                "more": "Three steps: a repository, a client, a plan."}  # fmt: skip
    bad = [one for one in found if one.level == queries.BAD]
    warn = [one for one in found if one.level == queries.WARN]
    total, word = len(found), "plan" if len(found) == 1 else "plans"
    if bad:
        verb = "is" if len(bad) == 1 else "are"
        return {"level": "bad", "words": f"{len(bad)} of {total} {word} {verb} not safe",
                "more": f"First: {bad[0].plan}. {bad[0].words}."}  # fmt: skip
    if warn:
        verb = "needs" if len(warn) == 1 else "need"
        return {"level": "warn", "words": f"{len(warn)} of {total} {word} {verb} a look",
                "more": f"First: {warn[0].plan}. {warn[0].words}."}  # fmt: skip
    return {"level": "good", "words": "Everything is backed up",
            "more": f"{total} {word}, every last backup went well."}  # fmt: skip
