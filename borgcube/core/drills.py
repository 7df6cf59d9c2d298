"""Restore drills: which archive is next, where reports are, what their words are.

``parameters_of`` reads the store and is called in the daemon; the rest is called by the
worker that restores, by the daemon and by the console. Reports are files in the home,
``drills/JOB/report.json`` and ``report.html``; the store keeps their figures and the SHA-256
of the first, and the journal has it as well.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from borgcube.core import home as places
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Archive, Job
from borgcube.core.quarantine import counts, require_sound
from borgcube.core.store import Root
from borgcube.core.trash import in_sight

PASSED, REMARKS, FAILED = "passed", "remarks", "failed"
# As a report and the command line say it.
IN_WORDS = {PASSED: "passed", REMARKS: "passed with remarks", FAILED: "failed"}
DEFAULT_FILES = 50
MAX_FILES = 10_000
# A sample stops here, so that a drill of a few huge files is still a matter of minutes.
DEFAULT_BYTES = 4 << 30
# Every so many drills of a plan, the whole archive is restored.
WHOLE_EVERY = 10
LOOKED_AT = 1000
NEWEST = 50  # of these, some may be deleted already
JSON_NAME, HTML_NAME = "report.json", "report.html"
FORMS = {"html": HTML_NAME, "json": JSON_NAME}
MAX_REPORT = 8 << 20


def report_dir(home: Path, job_id: str) -> Path:
    """Return the directory of a drill's report (not created here)."""
    return home / "drills" / job_id


def scratch_dir(home: Path, job_id: str) -> Path:
    """Return where a drill restores to (not created here); removed with the job."""
    return home / "scratch" / job_id


def read_report(home: Path, job_id: str, sha256: str) -> dict[str, Any]:
    """Return ``report`` (None when it is gone), the ``directory``, and ``genuine``: whether
    the file is the one whose digest the journal has."""
    directory = report_dir(home, job_id)
    try:
        with (directory / JSON_NAME).open("rb") as file:
            data = file.read(MAX_REPORT)
        report = json.loads(data)
    except (OSError, ValueError):
        return {"report": None, "directory": str(directory), "genuine": False}
    genuine = hashlib.sha256(data).hexdigest() == sha256
    return {"report": report, "directory": str(directory), "genuine": genuine}


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


def clear_scratch(home: Path, job_id: str = "") -> None:
    """Remove what a drill restored, or what all did; safe to repeat.

    Restored directories may forbid their own user to change them, and may be thousands deep: the
    system's own tools follow no link on their way, and go down any number of steps.
    """
    place = scratch_dir(home, job_id) if job_id else home / "scratch"
    if not place.exists():
        return
    for argv in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*argv, "--", str(place)], check=False, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def clear_scratch_later(home: Path, job_id: str = "") -> None:
    """Remove it in a thread, if there is anything: of a drill whose worker was killed."""
    place = scratch_dir(home, job_id) if job_id else home / "scratch"
    if place.exists():
        threading.Thread(
            target=clear_scratch, args=(home, job_id), name="scratch", daemon=True
        ).start()


def make_report_dir(home: Path, job_id: str) -> Path:
    """Make and return the directory of a drill's report."""
    places.private_directory(home / "drills")
    return places.private_directory(report_dir(home, job_id))
