"""Pages about jobs: the list with its filters, one job live, its log, cancel and run again."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response

from borgcube.core import lifecycle
from borgcube.core.access import Permission
from borgcube.core.errors import InvalidInput
from borgcube.core.texts import _
from borgcube.plugins.console import queries
from borgcube.plugins.console.resources import JobItem, Jobs, add

SHOWN_LINES, DOWNLOADED_LINES = 500, 10_000
SHOWN_WARNINGS = 200
PHASES = {
    "backup": ("connecting", "preparing", "transferring", "finishing"),
    "restore": ("connecting", "preparing", "transferring", "finishing"),
    "dry-run": ("connecting", "preparing", "listing", "measuring"),
}
AGAIN = {"backup": "backup.start", "dry-run": "plan.dry_run"}
FILTERS = ("state", "type", "client", "plan", "repository")
LEVELS = ("error", "warning", "info")


def jobs(context: Jobs, request: Any) -> dict[str, Any]:
    """List jobs, newest first, by page."""
    return {
        **queries.page(request, "jobs", FILTERS),
        "first_page": not request.params.get("before"),
        "states": [state for state in lifecycle.TRANSITIONS if state],
        "types": sorted(request.plugins.job_types),
        "clients": queries.choices(request, "clients"),
        "plans": queries.choices(request, "plans"),
    }


def timeline(job: Any) -> list[dict[str, str]]:
    """Return the phases of a job with what is past, here or where it stopped."""
    known = PHASES.get(job.type, ())
    names = list(known) if job.phase in known or not job.phase else [*known, job.phase]
    at = names.index(job.phase) if job.phase in names else -1
    ended = job.state in lifecycle.ENDED
    good = job.state in (lifecycle.DONE, lifecycle.WARNING)
    steps = []
    for index, name in enumerate(names):
        place = "past" if index < at or good else "here" if index == at else ""
        if index == at and ended and not good:
            place = "stop"
        steps.append({"name": name, "place": place})
    return steps


def line_of(text: str) -> dict[str, str]:
    """Return a line of a log in its parts: time, level, words."""
    at, _, rest = text.partition(" ")
    level, _, words = rest.partition(" ")
    if not at[:4].isdigit() or not level:
        return {"at": "", "level": "", "words": text}
    return {"at": at[11:19], "level": level if level in LEVELS else "info",
            "words": words.strip()}  # fmt: skip


def job(context: JobItem, request: Any) -> dict[str, Any]:
    """Show one job."""
    record = context.record
    lines = request.act("job.log", id=record.id, limit=SHOWN_LINES)["lines"]
    repeats = record.type in AGAIN and bool(record.plan)
    return {
        "job": queries.live_job(request, record), "phases": timeline(record),
        "lines": [line_of(line) for line in lines], "cut": len(lines) >= SHOWN_LINES,
        "warnings": list(record.warnings[:SHOWN_WARNINGS]),
        "more_warnings": max(0, len(record.warnings) - SHOWN_WARNINGS),
        "may_operate": request.has_permission(Permission.OPERATE), "repeats": repeats,
        "cancellable": record.state not in lifecycle.ENDED
        and record.state != lifecycle.CANCELLING,
        "archive": next(iter(request.db.archives.newest(
            1, name=str(record.result.get("archive", "")))), None),
    }  # fmt: skip


def log(context: JobItem, request: Any) -> Response:
    """Download the log as plain text."""
    lines = request.act("job.log", id=context.record.id, limit=DOWNLOADED_LINES)["lines"]
    text = "".join(f"{line}\n" for line in lines)
    return Response(
        text.encode("utf-8", "replace"), content_type="text/plain", charset="utf-8",
        content_disposition=f'attachment; filename="job-{context.record.id}.log"',
    )  # fmt: skip


def cancel(context: JobItem, request: Any) -> Any:
    """Ask the job to stop."""
    request.act("job.cancel", id=context.record.id)
    return HTTPSeeOther(request.path_to("jobs", context.record.id))


def again(context: JobItem, request: Any) -> Any:
    """Run a plan's backup or dry run again."""
    record = context.record
    if record.type not in AGAIN or not record.plan:
        raise InvalidInput(_("Only a plan's backup or dry run can be run again from here."))
    made = request.act(AGAIN[record.type], plan=record.plan)["job_id"]
    return HTTPSeeOther(request.path_to("jobs", made))


def includeme(config: Any) -> None:
    """Add the views."""
    operate = Permission.OPERATE
    add(config, jobs, Jobs, template="jobs")
    add(config, job, JobItem, template="job")
    add(config, log, JobItem, "log")
    add(config, cancel, JobItem, "cancel", permission=operate, posts=True)
    add(config, again, JobItem, "again", permission=operate, posts=True)
