"""When a plan should have spoken: the moment by which it should have a newer archive. Pure
reading of the store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from borgcube.core.registry import Registry
from borgcube.core.store import Root


def moment(text: str) -> datetime | None:
    """Return the aware time of an ISO string, or None when there is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def last_archive(root: Root, plan: str) -> Any:
    """Return the newest archive of a plan, or None."""
    found = root.archives.newest(1, plan=plan)
    return found[0] if found else None


def last_archive_at(root: Root, plan: str) -> datetime | None:
    """Return when a plan's newest archive was recorded, by this server's clock, or None."""
    found = last_archive(root, plan)
    return None if found is None else moment(found.created_at or found.start)


def due_by(
    root: Root, registry: Registry, plan: Any, now: datetime, *, days: int
) -> datetime | None:
    """Return the moment by which a plan should have a newer archive than it has; it is past
    when the plan is silent. None when nothing is expected of it.

    A plan without a schedule should have one every ``days`` days; 0 expects nothing.
    """
    if days <= 0:
        return None
    since = last_archive_at(root, plan.name) or moment(plan.created_at)
    return None if since is None else since + timedelta(days=days)
