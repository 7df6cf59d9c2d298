"""Pages about plans: the list, one plan, and the form that shows the very command."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core import rereading
from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError
from borgcube.core.forms import Form
from borgcube.core.planning import Pauses, expected_by, instant, next_runs, rule_named
from borgcube.core.standing import unused_exclusions
from borgcube.plugins.console import fleet, forms, queries
from borgcube.plugins.console.resources import PlanItem, Plans, add

SHOWN_RUNS = 5


def command_of(request: Any, options: dict[str, Any]) -> str:
    """Return the command that a backup with these options runs on the client."""
    repository = request.db.repositories.find("name", options.get("repository", ""))
    client = request.db.clients.find("name", options.get("client", ""))
    engine = request.plugins.engines.get(repository.engine) if repository else None
    if engine is None or not hasattr(engine, "preview"):
        return ""
    parameters = {
        **options, "borg": client.borg if client else "borg",
        "archive": f"{options.get('name') or 'NAME'}-2026-01-31T02:00:00",
    }  # fmt: skip
    return shlex.join(engine.preview(parameters))


def plans(context: Plans, request: Any) -> dict[str, Any]:
    """List plans, worst first, by page."""
    asked = {name: str(request.params.get(name, ""))[:100] for name in ("level", "find")}
    found, after = fleet.safeties(
        request, level=asked["level"], find=asked["find"],
        after=str(request.params.get("after", ""))[:200],
    )  # fmt: skip
    kept = {name: value for name, value in asked.items() if value}
    return {"plans": found, "asked": asked, "filtered": bool(kept),
            "more": request.path_to("plans", **kept, after=after) if after else "",
            "first_page": not request.params.get("after"), "overall": fleet.overall(request),
            "may_configure": request.me.may(Permission.CONFIGURE)}  # fmt: skip


def plan(context: PlanItem, request: Any) -> dict[str, Any]:
    """Show one plan."""
    record = context.record
    safety = fleet.safety(request, record.name)
    return {
        "plan": record, "safety": safety, "command": command_of(request, record.as_data()),
        "jobs": queries.visible(request, request.db.jobs, 10, plan=record.name),
        "archives": queries.visible(request, request.db.archives, 10, plan=record.name),
        "unused": unused_exclusions(request.db, record),
        "reread_since": rereading.wanted(request.db, record.name),
        "may_operate": request.may("backup.start", plan=record.name), **_times(request, record),
    }  # fmt: skip


def _times(request: Any, record: Any) -> dict[str, Any]:
    """Return what a plan's page says of time: its pause, its next runs, what is expected."""
    now, kinds = datetime.now(UTC), request.plugins.schedules
    found: dict[str, Any] = {
        "pause": None,
        "own_pause": False,
        "pause_reason": "",
        "runs": [],
        "expected": "",
    }
    pause = Pauses.at(request.db, now).of(
        plan=record.name, client=record.client, repository=record.repository
    )
    found["pause"], found["own_pause"] = pause, pause is not None and pause.scope == "plan"
    # That of more than one's own things is written for those who see these.
    if pause is not None and (pause.scope in ("plan", "client") or not request.me.limited):
        found["pause_reason"] = pause.reason
    try:
        rule = rule_named(request.db, kinds, record.schedule)
        if rule is not None:
            entry = request.db.timetable.get("plan", record.name)
            begin = now if pause is None else instant(pause.until)
            if begin is not None:
                runs = next_runs(rule, entry, max(begin, now), SHOWN_RUNS)
                found["runs"] = [run.isoformat() for run in runs]
            by = expected_by(request.db, kinds, record, now)
            found["expected"] = by.isoformat() if by else ""
    except BorgCubeError:
        pass  # doctor says what is wrong with the schedule
    return found


DRY_RUN = "dry_run"  # the button of a form that makes a dry run with what is typed


def typed(request: Any) -> Any:
    """Return what was posted; a dry run needs no name yet."""
    posted = request.POST
    if DRY_RUN in posted and not str(posted.get("name", "")).strip():
        posted = posted.copy()
        posted["name"] = "unsaved"
    return posted


def try_out(request: Any, form: Form, values: dict[str, Any]) -> Any:
    """Make a dry run with the options of a form, and lead to it; None when it is refused, with
    the reason in the form. Nothing is saved."""
    try:
        job = request.act("plan.dry_run", options=values)["job_id"]
        return HTTPSeeOther(request.path_to("jobs", job))
    except BorgCubeError as error:
        form.refuse(error)
        return None


def new(context: Plans, request: Any) -> Any:
    """Make a plan; ``preview`` shows the command, ``dry_run`` what it would save, and neither
    makes anything."""
    form = Form(forms.plan_fields(request))
    for name in ("client", "repository"):
        asked = str(request.params.get(name, ""))
        if request.method == "GET" and asked:
            form.values[name] = asked
    command = ""
    if request.method == "POST":
        values = form.read(typed(request))
        if values is not None and DRY_RUN in request.POST:
            begun = try_out(request, form, values)
            if begun is not None:
                return begun
            form.values["name"] = str(request.POST.get("name", ""))
        elif values is not None:
            command = command_of(request, values)
            if "preview" not in request.POST:
                try:
                    request.act("plan.add", **values)
                    return HTTPSeeOther(request.path_to("plans", values["name"]))
                except BorgCubeError as error:
                    form.refuse(error)
        if form.errors or form.problem:
            request.response.status_code = 400
    return {"form": form, "command": command,
            "has_client": bool(request.db.clients.newest(1)),
            "has_repository": bool(request.db.repositories.newest(1))}  # fmt: skip


def backup(context: PlanItem, request: Any) -> Any:
    """Back the plan up now; with ``reread``, reading all files."""
    reread = request.POST.get("reread") == "yes"
    job = request.act("backup.start", plan=context.record.name, reread=reread)["job_id"]
    return HTTPSeeOther(request.path_to("jobs", job))


def dry_run(context: PlanItem, request: Any) -> Any:
    """List what a backup would take."""
    job = request.act("plan.dry_run", plan=context.record.name)["job_id"]
    return HTTPSeeOther(request.path_to("jobs", job))


def includeme(config: Any) -> None:
    """Add the views."""
    add(config, plans, Plans, template="plans")
    add(config, new, Plans, "+add", template="plan_new", permission=Permission.CONFIGURE,
        posts=True)  # fmt: skip
    add(config, plan, PlanItem, template="plan")
    add(config, dry_run, PlanItem, "dry-run", permission=Permission.OPERATE, posts=True)
    add(config, backup, PlanItem, "backup", permission=Permission.OPERATE, posts=True)
