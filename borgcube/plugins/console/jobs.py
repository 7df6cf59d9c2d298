"""Pages about jobs: the list with its filters, one job live, its log, cancel and run again."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPForbidden, HTTPSeeOther
from pyramid.response import Response

from borgcube.core import clocks, lifecycle, rereading
from borgcube.core.access import Permission
from borgcube.core.errors import InvalidInput
from borgcube.core.texts import _
from borgcube.plugins.console import asking, queries
from borgcube.plugins.console.resources import JobItem, Jobs, add

SHOWN_LINES = 500
MAX_DOWNLOAD = 64 << 20  # characters; a log's own limit is usually 10 MB
SHOWN_WARNINGS = 200
PHASES = {
    "backup": ("connecting", "preparing", "transferring", "finishing"),
    "restore": ("connecting", "preparing", "transferring", "finishing"),
    "dry-run": ("connecting", "preparing", "listing", "measuring"),
}
AGAIN = {"backup": "backup.start", "dry-run": "plan.dry_run"}
NEEDED = {"backup": Permission.OPERATE, "dry-run": Permission.OPERATE,
          "restore": Permission.RESTORE}  # fmt: skip
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
    """Return the phases of a job, those past with begin and end, and those still to come."""
    begins = [entry.partition(" ")[::2] for entry in job.phases]
    if not begins and job.phase:  # of an older release
        begins = [("", job.phase)]
    ended = job.state in lifecycle.ENDED
    good = job.state in (lifecycle.DONE, lifecycle.WARNING)
    steps = []
    for index, (begin, name) in enumerate(begins):
        last = index == len(begins) - 1
        end = (job.finished_at if ended else "") if last else begins[index + 1][0]
        place = "past" if not last or good else "stop" if ended else "here"
        steps.append({"name": name, "place": place, "begin": begin, "end": end})
    known = PHASES.get(job.type, ())
    been = {name for _begin, name in begins}
    after = max((known.index(name) for name in been if name in known), default=-1)
    return steps + [{"name": name, "place": "", "begin": "", "end": ""}
                    for name in known[after + 1 :] if not ended or not begins]  # fmt: skip


def line_of(text: str) -> dict[str, str]:
    """Return a line of a log in its parts: time, level, words."""
    at, _, rest = text.partition(" ")
    level, _, words = rest.partition(" ")
    if not at[:4].isdigit() or not level:
        return {"at": "", "level": "", "words": text}
    return {"at": at, "level": level if level in LEVELS else "info",
            "words": words.strip()}  # fmt: skip


def job(context: JobItem, request: Any) -> dict[str, Any]:
    """Show one job."""
    record = context.record
    find = str(request.params.get("find", ""))[:500].strip() if record.type != "dry-run" else ""
    if find:
        said = request.act("job.search", id=record.id, find=find, limit=SHOWN_LINES)
    else:
        said = request.act("job.log", id=record.id, limit=SHOWN_LINES)
    lines = request.words.found(said["lines"], find)
    return {
        "job": queries.live_job(request, record), "phases": timeline(record),
        "lines": [line_of(line) for line in lines], "cut": len(lines) >= SHOWN_LINES,
        "warnings": request.words.data(list(record.warnings[:SHOWN_WARNINGS])),
        "more_warnings": max(0, len(record.warnings) - SHOWN_WARNINGS),
        "may_operate": request.has_permission(Permission.OPERATE),
        "clock": clocks.told(record.result),
        "reread_since": _reread_since(request, record),
        "repeats": repeats(request, record), "find": find,
        "matches": said.get("matches", 0) if request.words.all_shown else len(lines),
        "cancellable": record.state not in lifecycle.ENDED
        and record.state != lifecycle.CANCELLING,
        "archive": next(iter(request.db.archives.newest(
            1, name=str(record.result.get("archive", "")))), None),
    }  # fmt: skip


def _reread_since(request: Any, record: Any) -> str:
    """Return since when the plan of a job should be read again, for the page of the job whose
    client broke a rule and of those after it; empty when it need not."""
    since = rereading.wanted(request.db, record.plan) if record.type == "backup" else ""
    return since if since and record.finished_at >= since else ""


def log(context: JobItem, request: Any) -> Response:
    """Download the log as plain text."""
    parts: list[str] = []
    offset = length = 0
    while length < MAX_DOWNLOAD:
        found = request.act("job.log", id=context.record.id, limit=5000, offset=offset)
        if not found["lines"]:
            break
        parts += (f"{request.words.text(line)}\n" for line in found["lines"])
        length += sum(map(len, parts[-len(found["lines"]) :]))
        offset = found["next"]
    return Response(
        "".join(parts).encode("utf-8", "replace"), content_type="text/plain", charset="utf-8",
        content_disposition=f'attachment; filename="job-{context.record.id}.log"',
    )  # fmt: skip


def cancel(context: JobItem, request: Any) -> Any:
    """Ask the job to stop."""
    request.act("job.cancel", id=context.record.id)
    return HTTPSeeOther(request.path_to("jobs", context.record.id))


def repeats(request: Any, record: Any) -> bool:
    """Return whether the user may run a job again from its page."""
    needed = NEEDED.get(record.type)
    has_what = bool(record.plan) if record.type in AGAIN else bool(record.parameters)
    return needed is not None and has_what and bool(request.has_permission(needed))


def again(context: JobItem, request: Any) -> Any:
    """Run a backup, a dry run or a restore again, as it would be run now."""
    record = context.record
    if record.type not in NEEDED or not (record.plan or record.type == "restore"):
        raise InvalidInput(_("Only a backup, a dry run or a restore can be run again from here."))
    if not repeats(request, record):
        raise HTTPForbidden
    if record.type in AGAIN:
        made = request.act(AGAIN[record.type], plan=record.plan)
    else:
        asked = record.parameters
        if not asking.is_sure(request):
            return _asked(request, record, asked)
        where: dict[str, Any] = {"to_dir": asked["target"]}
        if not asked.get("server_side"):
            where = {"to_client": {"client": record.client, "directory": asked["target"]}}
        made = request.act(
            "restore.start", archive=f"{record.repository}::{asked['archive']}",
            paths=list(asked.get("paths") or ()), as_root=bool(asked.get("as_root")),
            unfenced=bool(asked.get("unfenced")),
            shared_target=bool(asked.get("shared_target")), **where,
        )  # fmt: skip
    return HTTPSeeOther(request.path_to("jobs", made["job_id"]))


def _asked(request: Any, record: Any, parameters: Any) -> dict[str, Any]:
    """Say what restoring again means, which writes over what is there by now."""
    paths = list(parameters.get("paths") or ())
    return asking.page(
        request, _("Restore once more?"), button=_("Restore"),
        back=request.path_to("jobs", record.id), danger=True,
        lines=[_("Files that are there are overwritten with those of the archive, also where they"
                 " were changed since."),
               _("It runs as root.") if parameters.get("as_root") else
               _("It runs as the user of the login.")],
        facts={_("Archive"): parameters["archive"], _("Client"): record.client or _("this server"),
               _("Target"): parameters["target"],
               _("What"): ", ".join(paths[:20]) or _("all of it")},
    )  # fmt: skip


def includeme(config: Any) -> None:
    """Add the views."""
    operate = Permission.OPERATE
    add(config, jobs, Jobs, template="jobs")
    add(config, job, JobItem, template="job")
    add(config, log, JobItem, "log")
    add(config, cancel, JobItem, "cancel", permission=operate, posts=True)
    add(
        config, again, JobItem, "again", posts=True, renderer=asking.TEMPLATE
    )  # what it needs depends on the job
