"""Restore drills: which archive is next. Reads the store; called in the daemon."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from borgcube.core.drills import DEFAULT_FILES, MAX_FILES
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Archive, Job
from borgcube.core.quarantine import counts, require_sound
from borgcube.core.store import Root
from borgcube.core.trash import in_sight

# Every so many drills of a plan, the whole archive is restored.
WHOLE_EVERY = 10
LOOKED_AT = 1000
NEWEST = 50  # of these, some may be deleted already


def _newest(root: Root, plan: str, repository: str) -> list[Archive]:
    """Return the newest archive of a plan that counts, in a list, or an empty one."""
    found = root.archives.newest(NEWEST, plan=plan, repository=repository)
    return [archive for archive in found if counts(archive)][:1]


def _skipped(root: Root, archive: Archive) -> list[str]:
    """Return, in words, which newer archives of its plan are in quarantine."""
    if not archive.plan:
        return []
    found = root.archives.newest(NEWEST, plan=archive.plan, repository=archive.repository)
    return [
        f"{one.name} is newer and is skipped: it is in quarantine: {one.quarantine}."
        for one in found
        if one.quarantine and in_sight(one)
        and root.archives.number_of(one) > root.archives.number_of(archive)
    ]  # fmt: skip


def _plan_of(root: Root, job: Job) -> str:
    """Return the plan of the job's repository whose last drill is the longest ago."""
    known: dict[str, str] = {}
    for plan in root.plans.oldest("repository", job.repository):
        if _newest(root, plan.name, job.repository):
            last = root.drills.newest(1, plan=plan.name)
            known[plan.name] = last[0].created_at if last else ""
    return min(sorted(known), key=lambda name: known[name]) if known else ""


def parameters_of(root: Root, job: Job) -> dict[str, Any]:
    """Return what the drill of a job restores: ``archive`` and the rest of its order.

    Taken from its parameters ``archive`` or ``plan``, else the plan whose turn it is. ``whole``
    comes round on its own unless it is given. Raises NotFound or InvalidInput.
    """
    given = dict(job.parameters)
    try:
        files = int(given.get("files") or DEFAULT_FILES)
    except (TypeError, ValueError):
        files = 0
    if not 1 <= files <= MAX_FILES:
        raise InvalidInput(f"files must be a number from 1 to {MAX_FILES}.", field="files")
    name, plan_name = str(given.get("archive") or ""), str(given.get("plan") or "")
    if name:
        found = [one for one in root.archives.oldest("name", name)
                 if one.repository == job.repository and in_sight(one)]  # fmt: skip
    else:
        plan_name = plan_name or job.plan or _plan_of(root, job)
        found = _newest(root, plan_name, job.repository) if plan_name else []
    if not found:
        what = f"archive {name!r}" if name else f"archive of plan {plan_name!r}" \
            if plan_name else "archive of a plan"  # fmt: skip
        raise NotFound(f"There is no {what} in repository {job.repository}.",
                       next_step="Back it up first: borgcube backup PLAN --wait")  # fmt: skip
    archive = found[0]
    require_sound(archive)
    plan = root.plans.find("name", archive.plan) if archive.plan else None
    past = root.drills.newest(LOOKED_AT, plan=archive.plan) if archive.plan else []
    whole = given.get("whole")
    if whole is None:
        since = next((n for n, one in enumerate(past) if one.whole), len(past))
        whole = since >= WHOLE_EVERY - 1
    canary = next((one.canary_sha256 for one in past if one.canary_sha256), "")
    return {
        "archive": archive.name, "archive_id": archive.id, "plan": archive.plan,
        "of_client": archive.client, "start": archive.at, "files": files,
        "whole": str(whole).lower() in ("true", "yes", "1"),
        "whole_asked": given.get("whole") is not None,
        "archive_size": int(archive.stats.get("size") or 0),
        "canary": str(getattr(plan, "canary", "") or ""), "canary_sha256": canary,
        "server_side": True, "borg": "borg",
        "skipped": list(given.get("skipped") or ([] if name else _skipped(root, archive))),
        "prepared_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
